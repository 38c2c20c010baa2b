"use strict";

const $ = (id) => document.getElementById(id);
const data = JSON.parse($("data").textContent);
const [width, height] = data.size;
const isVideo = data.kind === "video";
const last = data.times.length - 1;
const stage = $("stage");
const MOST_ZOOM = 32;

// What is shown: numbers of layers, the border in percent, and the zoom with its offset in pixels of the stage.
const view = { left: 0, right: 1, border: 50, zoom: 1, x: 0, y: 0, frame: 0, playing: false };

const layers = data.layers.map((layer) => {
  const pane = document.createElement("div"), content = document.createElement("div");
  const media = document.createElement(isVideo ? "video" : "img");
  pane.className = "pane";
  content.className = "content";
  if (isVideo) {
    const bytes = Uint8Array.from(atob(layer.data), (character) => character.charCodeAt(0));
    media.src = URL.createObjectURL(new Blob([bytes], { type: layer.type }));
    media.muted = media.playsInline = true;
    media.preload = "auto";
    media.setAttribute("aria-label", layer.name);
  } else {
    media.src = `data:${layer.type};base64,${layer.data}`;
    media.alt = layer.name;
    media.draggable = false;
  }
  content.append(media);
  pane.append(content);
  $("layers").append(pane);
  return { ...layer, pane, content, media };
});
const videos = isVideo ? layers.map((layer) => layer.media) : [];

function clamp(value, low, high) {
  return Math.min(Math.max(value, low), high);
}

function show() {
  const difference = document.querySelector("input[name=view]:checked").value === "difference";
  layers.forEach(({ pane, content }, number) => {
    const isRight = number === view.right && view.right !== view.left;
    const isAlone = view.right === view.left;
    pane.hidden = (number !== view.left && !isRight) || (difference && isAlone); // no difference is black
    pane.style.zIndex = isRight ? 1 : 0;
    pane.style.clipPath = isRight && !difference ? `inset(0 0 0 ${view.border}%)` : "none";
    pane.classList.toggle("difference", isRight && difference);
    content.style.transform = `translate(${view.x}px, ${view.y}px) scale(${view.zoom})`;
  });
  $("layers").style.filter = difference ? `brightness(${$("gain").value})` : "none";
  $("edge").hidden = difference || view.left === view.right;
  $("edge").style.left = `${view.border}%`;
  $("border").value = view.border;
  $("border").disabled = $("edge").hidden;
  $("gain-label").hidden = !difference;
  $("zoom").value = `${Math.round(view.zoom * 100) / 100}×`;
  stage.classList.toggle("zoomed", view.zoom > 1);
  stage.classList.toggle("pixels", view.zoom * stage.clientWidth >= 2 * width);
  if (isVideo) {
    const y = (data.lines[Number($("line").value)] + 0.5) / height;
    $("scan").style.top = `${view.y + y * view.zoom * stage.clientHeight}px`;
  }
}

function moveBorder(percent) {
  view.border = clamp(percent, 0, 100);
  show();
}

function zoomTo(zoom, x = stage.clientWidth / 2, y = stage.clientHeight / 2) {
  const next = clamp(zoom, 1, MOST_ZOOM), share = next / view.zoom;
  view.zoom = next;
  moveTo(x - (x - view.x) * share, y - (y - view.y) * share);
}

function moveTo(x, y) {
  view.x = clamp(x, stage.clientWidth * (1 - view.zoom), 0);
  view.y = clamp(y, stage.clientHeight * (1 - view.zoom), 0);
  show();
}

// Playing: the first video has the clock, and the others follow it.

function frameAt(seconds) {
  return clamp(Math.floor(seconds * data.rate + 1e-3), 0, last);
}

function seek(frame) {
  view.frame = clamp(frame, 0, last);
  for (const video of videos) video.currentTime = (view.frame + 0.5) / data.rate;
  showTime();
}

function showTime() {
  $("frame").value = view.frame;
  const seconds = data.times[view.frame];
  $("time").value = `${view.frame + 1} / ${last + 1}, ${seconds.toFixed(3)} s`;
  $("frame").setAttribute("aria-valuetext", $("time").value);
  for (const chart of document.querySelectorAll(".chart")) {
    const { left, right } = chart.dataset;
    const x = Number(left) + (Number(right) - Number(left)) * (seconds / (data.times[last] || 1));
    const now = chart.querySelector(".now");
    now.setAttribute("x1", x);
    now.setAttribute("x2", x);
  }
  drawMarks();
}

function play(on) {
  view.playing = on;
  $("play").textContent = on ? "Pause" : "Play";
  for (const video of videos) {
    video.playbackRate = Number($("speed").value);
    if (on) video.play().catch(() => play(false));
    else video.pause();
  }
  if (on) requestAnimationFrame(follow);
  else seek(view.frame);
}

function follow() {
  if (!view.playing) return;
  const [clock, ...others] = videos;
  if (clock.ended || clock.currentTime >= (last + 1) / data.rate) {
    for (const video of videos) video.currentTime = 0;
    for (const video of videos) video.play().catch(() => play(false));
  }
  for (const video of others) {
    const drift = video.currentTime - clock.currentTime;
    if (Math.abs(drift) > 1 / data.rate && !video.seeking && !clock.seeking) video.currentTime = clock.currentTime;
  }
  const frame = frameAt(clock.currentTime);
  if (frame !== view.frame) {
    view.frame = frame;
    showTime();
  }
  requestAnimationFrame(follow);
}

// Temporal profiles: a sheet of each video has those of all lines, one below the other.

const profiles = isVideo ? layers.map((layer) => {
  const figure = document.createElement("figure"), caption = document.createElement("figcaption");
  const canvas = document.createElement("canvas"), sheet = new Image();
  caption.textContent = layer.name;
  canvas.width = width;
  canvas.height = last + 1;
  canvas.setAttribute("role", "img");
  figure.append(caption, canvas);
  $("profiles").append(figure);
  sheet.onload = drawMarks;
  sheet.src = layer.profiles;
  return { name: layer.name, canvas, sheet };
}) : [];

function drawMarks() {
  const line = Number($("line").value), count = last + 1;
  for (const { name, canvas, sheet } of profiles) {
    if (!sheet.complete) continue;
    const context = canvas.getContext("2d");
    context.drawImage(sheet, 0, line * count, width, count, 0, 0, width, count);
    context.fillStyle = "#ffe14d";
    context.fillRect(0, view.frame, Math.max(4, width / 100), 1);
    canvas.setAttribute("aria-label", `${name}, line ${data.lines[line]} over time`);
  }
}

function takeLine() {
  $("row").value = `row ${data.lines[Number($("line").value)]} of ${height}`;
  drawMarks();
  show();
}

// Controls.

for (const [name, chosen] of [["left", 0], ["right", 1]]) {
  $(name).append(...layers.map((layer, number) => new Option(layer.name, number, false, number === chosen)));
  $(name).onchange = () => {
    view[name] = Number($(name).value);
    show();
  };
}
for (const input of document.querySelectorAll("input[name=view]")) input.onchange = show;
$("gain").onchange = show;
$("border").oninput = () => moveBorder(Number($("border").value));
$("in").onclick = () => zoomTo(view.zoom * 1.5);
$("out").onclick = () => zoomTo(view.zoom / 1.5);
$("fit").onclick = () => zoomTo(1);
$("play").onclick = () => play(!view.playing);
$("speed").onchange = () => play(view.playing);
$("back").onclick = () => step(-1);
$("next").onclick = () => step(1);
$("frame").oninput = () => goTo(Number($("frame").value));
$("line").oninput = takeLine;
$("line").onfocus = $("line").onblur = (event) => { $("scan").hidden = event.type === "blur"; };

function goTo(frame) {
  if (view.playing) play(false);
  seek(frame);
}

function step(by) {
  goTo(view.frame + by);
}

for (const chart of document.querySelectorAll(".chart")) {
  chart.onclick = (event) => {
    const box = chart.getBoundingClientRect(), { left, right, width: drawn } = chart.dataset;
    const x = ((event.clientX - box.left) / box.width) * drawn;
    const seconds = ((x - left) / (right - left)) * data.times[last];
    const distances = data.times.map((time) => Math.abs(time - seconds));
    goTo(distances.indexOf(Math.min(...distances)));
  };
}

stage.addEventListener("wheel", (event) => {
  event.preventDefault();
  const box = stage.getBoundingClientRect();
  zoomTo(view.zoom * Math.exp(-event.deltaY / 400), event.clientX - box.left, event.clientY - box.top);
}, { passive: false });

let dragged = null; // where the pointer was, while it is down
stage.addEventListener("pointerdown", (event) => {
  stage.setPointerCapture(event.pointerId);
  dragged = { x: event.clientX, y: event.clientY };
  if (view.zoom === 1) dragBorder(event);
});
stage.addEventListener("pointermove", (event) => {
  if (!dragged) return;
  if (view.zoom === 1) {
    dragBorder(event);
  } else {
    moveTo(view.x + event.clientX - dragged.x, view.y + event.clientY - dragged.y);
    dragged = { x: event.clientX, y: event.clientY };
  }
});
for (const end of ["pointerup", "pointercancel"]) stage.addEventListener(end, () => { dragged = null; });

function dragBorder(event) {
  const box = stage.getBoundingClientRect();
  moveBorder(((event.clientX - box.left) / box.width) * 100);
}

const ARROWS = { ArrowLeft: [-1, 0], ArrowRight: [1, 0], ArrowUp: [0, -1], ArrowDown: [0, 1] };

document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey || event.target.matches("select")) return;
  const onStage = event.target === stage || event.target === document.body;
  const [across, down] = ARROWS[event.key] ?? [0, 0];
  if (event.key in ARROWS && onStage) {
    if (view.zoom > 1) moveTo(view.x - across * stage.clientWidth / 10, view.y - down * stage.clientHeight / 10);
    else if (across) moveBorder(view.border + across * (event.shiftKey ? 10 : 2));
    else return;
  } else if (event.key === "+" || event.key === "=") {
    zoomTo(view.zoom * 1.5);
  } else if (event.key === "-") {
    zoomTo(view.zoom / 1.5);
  } else if (event.key === "0") {
    zoomTo(1);
  } else if (isVideo && event.key === " " && !event.target.matches("button, input")) {
    play(!view.playing);
  } else if (isVideo && (event.key === "," || event.key === ".")) {
    step(event.key === "," ? -1 : 1);
  } else {
    return;
  }
  event.preventDefault();
});

stage.style.aspectRatio = data.aspect;
stage.style.maxWidth = `calc(85vh * ${data.aspect})`;
new ResizeObserver(() => moveTo(view.x, view.y)).observe(stage);
if (isVideo) {
  $("player").hidden = $("profile").hidden = false;
  $("frame").max = last;
  $("line").max = data.lines.length - 1;
  $("line").value = Math.floor(data.lines.length / 2);
  seek(0);
  takeLine();
}
show();
