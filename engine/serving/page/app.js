"use strict";

const $ = (id) => document.getElementById(id);
const TUS = { "Tus-Resumable": "1.0.0" };
const MediaFeed = self.ManagedMediaSource ?? self.MediaSource;
const AHEAD_S = 60; // of the preview that is loaded before it is played
const ENDED = ["done", "failed", "cancelled"];
const PASSING = [408, 409, 423, 503]; // statuses of what may succeed at the next try

/* The server */

class Refusal extends Error { // the server's sentence
  constructor(sentence, status) {
    super(sentence);
    this.status = status;
  }
}

let token = null; // in memory alone
let asking = null; // for a token

async function call(address, options = {}) {
  for (;;) {
    const used = token;
    const headers = { ...options.headers, ...(used && { Authorization: `Bearer ${used}` }) };
    const answer = await fetch(address, { ...options, headers });
    if (answer.ok) return answer;
    if (answer.status === 401) {
      if (token === used) await askForToken(used !== null);
      continue;
    }
    const problem = await answer.json().catch(() => ({}));
    throw new Refusal(problem.detail || `The server answered with the status ${answer.status}.`, answer.status);
  }
}

function askForToken(refused) {
  asking ??= new Promise((resolve) => {
    $("access-problem").hidden = !refused;
    $("token").value = "";
    $("access").showModal();
    $("access-form").onsubmit = (event) => {
      event.preventDefault();
      token = $("token").value;
      asking = null;
      $("access").close();
      resolve();
    };
  });
  return asking;
}

const read = async (address, signal) => (await call(address, { signal })).json();

/** The address of a job's media, which players and links ask for without the token. */
const media = (job, address) => (job.access ? `${address}?access=${job.access}` : address);

function pause(ms, signal) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(resolve, ms);
    signal.addEventListener("abort", () => (clearTimeout(timer), reject(signal.reason)), { once: true });
  });
}

/** Do a task, and again after an interruption; a task that gets on calls its argument. */
async function patiently(signal, task) {
  for (let failures = 0; ; failures += 1) {
    try {
      return await task(() => { failures = 0; });
    } catch (error) {
      const passes = !(error instanceof Refusal) || (PASSING.includes(error.status) && failures < 20);
      if (signal.aborted || !passes) throw error;
      $("state").textContent = "The connection is lost; trying again";
      await pause(Math.min(500 * 2 ** failures, 10000), signal);
    }
  }
}

/* Uploads */

/** The addresses of unfinished uploads, which outlive the page where the browser keeps something for it. */
const uploads = {
  here: new Map(),
  key: (file) => `stvsr upload ${file.name} ${file.size} ${file.lastModified}`,
  get(file) {
    try { return this.here.get(this.key(file)) ?? localStorage.getItem(this.key(file)); } catch { return null; }
  },
  set(file, address) {
    this.here.set(this.key(file), address);
    try { localStorage.setItem(this.key(file), address); } catch { /* it is kept here alone */ }
  },
  drop(file) {
    this.here.delete(this.key(file));
    try { localStorage.removeItem(this.key(file)); } catch { /* it was kept here alone */ }
  },
};

/** Return how much of an upload is there, or null if it is not. */
async function offsetOf(address, signal) {
  try {
    return Number((await call(address, { method: "HEAD", headers: TUS, signal })).headers.get("Upload-Offset"));
  } catch (error) {
    if (error.status === 404) return null;
    throw error;
  }
}

/** Send a file, or the rest of it, and return the address of its upload. */
function upload(file, signal, onProgress) {
  return patiently(signal, async (getsOn) => {
    let address = uploads.get(file);
    let offset = address && (await offsetOf(address, signal));
    if (offset === null) {
      const headers = { ...TUS, "Upload-Length": String(file.size) };
      address = (await call("/v1/uploads", { method: "POST", headers, signal })).headers.get("Location");
      uploads.set(file, address);
      offset = 0;
    }
    for (let bytes = 1 << 18; offset < file.size;) {
      onProgress(offset);
      const headers = { ...TUS, "Content-Type": "application/offset+octet-stream", "Upload-Offset": String(offset) };
      const began = performance.now();
      const body = file.slice(offset, offset + bytes);
      const answer = await call(address, { method: "PATCH", headers, body, signal });
      offset = Number(answer.headers.get("Upload-Offset"));
      getsOn();
      bytes = Math.min(Math.max(performance.now() - began < 700 ? bytes * 2 : bytes / 2, 1 << 16), 1 << 24);
    }
    return address;
  });
}

/* Jobs */

/** Show a job until it has ended: each event tells that something has changed. */
function follow(address, signal) {
  return patiently(signal, async (getsOn) => {
    for (;;) {
      const job = await read(address, signal);
      show(job);
      if (ENDED.includes(job.state)) return;
      const events = (await call(job.links.events, { signal })).body.pipeThrough(new TextDecoderStream()).getReader();
      for (let text = ""; ;) {
        const { done, value } = await events.read();
        if (done) break;
        getsOn();
        text += value;
        if (!text.includes("\n\n")) continue;
        text = text.slice(text.lastIndexOf("\n\n") + 2);
        show(await read(address, signal));
      }
      await pause(300, signal); // the job has ended, or the server has
    }
  });
}

function show(job) {
  const share = job.frames_total ? job.frames_done / job.frames_total : 0;
  const names = { queued: "Waiting for its turn", running: job.frames_total ? "Upscaling" : "Reading the video" };
  $("state").textContent = { ...names, done: "Done", failed: "Failed", cancelled: "Cancelled" }[job.state];
  $("numbers").textContent = job.frames_total
    ? `${job.frames_done} of ${job.frames_total} frames`
    : job.position > 1 ? `Number ${job.position} in the queue` : "";
  $("facts").textContent = job.eta_s ? `About ${spoken(job.eta_s)} left` : "";
  $("progress").hidden = ENDED.includes(job.state);
  if (job.state === "running" && !job.frames_done) $("progress").removeAttribute("value");
  else $("progress").value = share;
  compare(job);
  if (!ENDED.includes(job.state)) return;
  $("cancel").hidden = true;
  $("again").hidden = false;
  if (job.state === "failed") complain(job.error.message);
  if (job.state === "done") {
    const [width, height] = job.report.size_out;
    $("numbers").textContent = `${job.report.frames_out} frames of ${width} × ${height}`;
    $("facts").textContent = job.finished ? `It took ${spoken(job.finished - job.started)}` : "";
    $("download").href = media(job, job.links.result);
    $("download").download = resultName(job);
    $("download").hidden = false;
  }
}

function resultName(job) {
  const stem = work.file ? work.file.name.replace(/\.[^.]*$/, "") : "video";
  const [width, height] = job.report.size_out;
  return `${stem}_${width}x${height}.${job.options.container}`;
}

function spoken(seconds) {
  if (seconds < 90) return `${Math.max(1, Math.round(seconds))} s`;
  if (seconds < 5400) return `${Math.round(seconds / 60)} minutes`;
  return `${(seconds / 3600).toFixed(1)} hours`;
}

/* The comparison: two videos that are kept in step, or two still frames where a browser cannot play them */

const before = $("before");
const after = $("after");
const view = { playable: false, shown: "", preview: null, stills: null };

const leader = () => ($("after-layer").hidden || view.stills ? before : after);
const loadedUntil = () => (after.buffered.length ? after.buffered.end(after.buffered.length - 1) : 0);

function compare(job) {
  const refuse = () => compareStills(job);
  if (!job.frames_done) return;
  if (!view.playable || view.shown === "stills") refuse();
  else if (job.state !== "done") followPreview(job).catch(refuse);
  else {
    after.onerror = () => followPreview(job).catch(refuse); // a browser may play the frames and not the container
    playAfter("result", media(job, job.links.result));
  }
}

function playAfter(kind, address) {
  const { currentTime, paused } = leader();
  view.shown = kind;
  after.onloadeddata = () => {
    const end = kind === "preview" ? loadedUntil() : after.duration;
    after.currentTime = before.currentTime = currentTime < end ? currentTime : 0;
    showLayers(false);
    if (!paused) play();
  };
  after.src = address;
}

/** Load the finished segments of a job, one after another, into the second video. */
async function followPreview(job) {
  if (view.shown !== "preview") view.preview = openPreview(job);
  const preview = await view.preview;
  const lines = (await (await call(job.links.preview)).text()).split("\n");
  const names = lines.filter((line) => line && !line.startsWith("#")).slice(preview.seen);
  preview.seen += names.length;
  preview.waiting.push(...names.map((name) => new URL(name, preview.base)));
  preview.complete = ENDED.includes(job.state);
  await feed(preview);
}

async function openPreview(job) {
  view.shown = "preview";
  const base = new URL(job.links.preview, location);
  const first = await call(new URL("preview/init.mp4", base));
  const type = first.headers.get("Content-Type");
  if (!MediaFeed?.isTypeSupported(type)) throw new Refusal(`This browser does not play ${type}.`);
  const source = new MediaFeed();
  after.disableRemotePlayback = true;
  after.onerror = () => compareStills(job);
  const opened = new Promise((resolve) => source.addEventListener("sourceopen", resolve, { once: true }));
  playAfter("preview", URL.createObjectURL(source));
  await opened;
  source.duration = before.duration;
  const buffer = source.addSourceBuffer(type);
  await update(buffer, async () => buffer.appendBuffer(await first.arrayBuffer()));
  return { base, source, buffer, waiting: [], seen: 0, complete: false, busy: false };
}

/** Append the segments that are waiting, some time ahead of what is played. */
async function feed(preview) {
  const { source, buffer, waiting } = preview;
  if (preview.busy) return;
  preview.busy = true;
  try {
    while (waiting.length && loadedUntil() - after.currentTime < AHEAD_S) {
      const part = await (await call(waiting[0])).arrayBuffer();
      await update(buffer, () => buffer.appendBuffer(part));
      const start = buffer.buffered.length ? buffer.buffered.start(0) : 0;
      if (start > 0.05 && !buffer.timestampOffset) { // the first video begins at 0 in its player
        await update(buffer, () => buffer.remove(0, Infinity));
        buffer.timestampOffset = -start;
        continue;
      }
      waiting.shift();
    }
    if (preview.complete && !waiting.length && source.readyState === "open") source.endOfStream();
  } catch (error) {
    if (view.shown === "preview" && error.name !== "QuotaExceededError") throw error; // else it goes on later
  } finally {
    preview.busy = false;
  }
}

function update(buffer, change) {
  return new Promise((resolve, reject) => {
    buffer.onupdateend = resolve;
    Promise.resolve().then(change).catch(reject);
  });
}

function compareStills(job) {
  const first = view.stills === null;
  view.stills = job;
  view.shown = "stills";
  $("seek").max = job.frames_total - 1;
  $("seek").setAttribute("aria-label", "Frame");
  if (first) showStill(0);
}

function showStill(number) {
  const job = view.stills;
  const frame = Math.min(Math.round(number), job.frames_done - 1);
  $("seek").value = frame;
  $("clock").textContent = `Frame ${frame + 1} of ${job.frames_total}`;
  $("before-still").onload = () => {
    frameAspect($("before-still").naturalWidth, $("before-still").naturalHeight);
    showLayers(true);
  };
  for (const side of ["before", "after"]) {
    $(`${side}-still`).src = media(job, `${job.links.self}/frames/${frame}/${side}.png`);
  }
}

function showLayers(still) {
  $("drop").hidden = true;
  $("compare").hidden = $("transport").hidden = $("after-layer").hidden = false;
  before.hidden = after.hidden = $("play").hidden = still;
  $("before-still").hidden = $("after-still").hidden = !still;
}

function frameAspect(width, height) {
  $("compare").style.setProperty("--ratio", width / height);
}

function moveBorder() {
  const value = Number($("border").value);
  $("compare").style.setProperty("--x", `${value}%`);
  $("border").setAttribute("aria-valuetext", `${Math.round(value)} % before`);
}

async function play() {
  if (leader() === after && after.ended) before.currentTime = 0;
  await Promise.allSettled([before.play(), leader().play()]);
}

/** Move the first video to the time of the second: at once, or by playing a little faster or slower. */
function keepInStep(time) {
  const gap = before.currentTime - time; // seconds
  if (after.seeking) return;
  if (Math.abs(gap) > 0.2 || (after.paused && Math.abs(gap) > 0.001)) before.currentTime = time;
  else before.playbackRate = 1 - Math.max(-0.1, Math.min(0.1, 2 * gap));
}

function onFrame(_, frame) {
  keepInStep(frame.mediaTime);
  showTime();
  after.requestVideoFrameCallback(onFrame);
}

function showTime() {
  if (view.stills) return;
  const time = leader().currentTime;
  const length = Number.isFinite(before.duration) ? before.duration : 0;
  const text = (seconds) => `${Math.floor(seconds / 60)}:${String(Math.floor(seconds % 60)).padStart(2, "0")}`;
  $("seek").max = length;
  $("seek").value = time;
  $("seek").setAttribute("aria-valuetext", `${time.toFixed(1)} of ${length.toFixed(1)} seconds`);
  $("clock").textContent = `${text(time)} / ${text(length)}`;
}

function seek() {
  const value = Number($("seek").value);
  if (view.stills) return showStill(value);
  const time = view.shown === "preview" ? Math.min(value, loadedUntil()) : value;
  before.currentTime = time;
  if (leader() === after) after.currentTime = time;
}

function connectComparison() {
  before.onloadedmetadata = () => {
    view.playable = before.videoWidth > 0;
    if (!view.playable) return;
    frameAspect(before.videoWidth, before.videoHeight);
    $("drop").hidden = true;
    $("compare").hidden = $("transport").hidden = false;
    showTime();
    showOutcome();
  };
  $("border").oninput = moveBorder;
  $("seek").oninput = seek;
  $("play").onclick = () => (leader().paused ? play() : (before.pause(), after.pause()));
  for (const video of [before, after]) {
    for (const kind of ["play", "pause", "ended"]) {
      video.addEventListener(kind, () => {
        const playing = !leader().paused && !leader().ended;
        $("play").setAttribute("aria-pressed", String(playing));
        if (video === leader() && !playing) before.pause();
      });
    }
    video.ontimeupdate = showTime;
  }
  after.addEventListener("timeupdate", () => {
    if (view.shown === "preview") view.preview.then(feed).catch(() => {}); // shown by the next event of the job
  });
  after.onwaiting = () => before.pause(); // the preview has no more yet
  after.onplaying = () => before.play().catch(() => {}); // it may be paused again at once
  after.onseeked = after.onpause = () => keepInStep(after.currentTime);
  after.requestVideoFrameCallback?.(onFrame);
  moveBorder();
}

/* The options */

let models = [];

function radios(box, name, values) {
  for (const value of values) {
    const label = document.createElement("label");
    const input = document.createElement("input");
    Object.assign(input, { type: "radio", name, value });
    label.append(input, `×${value}`);
    box.append(label);
  }
}

const choice = (name) => Number(document.querySelector(`input[name=${name}]:checked`).value);

/** Leave the choices that the network has, and choose the usual one if the present one is not among them. */
function limit(name, possible, usual) {
  for (const input of document.querySelectorAll(`input[name=${name}]`)) {
    input.disabled = !possible.includes(Number(input.value));
    if (input.disabled) input.checked = false;
  }
  if (!document.querySelector(`input[name=${name}]:checked`)) {
    const value = possible.includes(usual) ? usual : possible[0];
    const input = document.querySelector(`input[name=${name}][value="${value}"]`);
    if (input) input.checked = true;
  }
}

function takeModel() {
  const model = models.find((one) => one.name === $("model").value);
  limit("scale", model.scales, 4);
  limit("time_factor", model.time_factors, 2);
  showOutcome();
}

function showOutcome() {
  if (!view.playable || !models.length) return;
  const [width, height] = [before.videoWidth, before.videoHeight];
  const size = `${Math.round(width * choice("scale"))} × ${Math.round(height * choice("scale"))}`;
  const rate = choice("time_factor");
  $("outcome").textContent = `${width} × ${height} becomes ${size}${rate === 1 ? "" : `, with ${rate} times the frames`}`;
}

async function loadOptions() {
  const found = await read("/v1/models");
  models = found.models.filter((model) => model.scales.length);
  for (const { name } of models) $("model").append(new Option(name, name, name === found.default, name === found.default));
  for (const [name, list] of [["scale", "scales"], ["time_factor", "time_factors"]]) {
    radios($(list), name, [...new Set(models.flatMap((model) => model[list]))].sort((a, b) => a - b));
  }
  $("options").onchange = takeModel;
  takeModel();
  const most = Number((await call("/v1/uploads", { method: "OPTIONS" })).headers.get("Tus-Max-Size"));
  $("limits").textContent = `Up to ${bytesText(most)}`;
}

function bytesText(count) {
  const power = Math.min(3, Math.floor(Math.log(Math.max(count, 1)) / Math.log(1024)));
  return `${Number((count / 1024 ** power).toPrecision(3))} ${["bytes", "KiB", "MiB", "GiB"][power]}`;
}

/* The page */

const work = { file: null, abort: null };

function complain(sentence) {
  $("problem").textContent = sentence;
  $("problem").hidden = !sentence;
}

function choose(file) {
  if (!file || work.abort) return;
  complain("");
  work.file = file;
  view.playable = false;
  URL.revokeObjectURL(before.src);
  before.src = URL.createObjectURL(file);
  $("chosen").textContent = `${file.name}, ${bytesText(file.size)}`;
  $("options").hidden = $("again").hidden = false;
}

/** Run one piece of work, which `cancel` ends, and show what goes wrong. */
async function run(task) {
  const abort = (work.abort = new AbortController());
  complain("");
  $("options").hidden = $("again").hidden = $("download").hidden = true;
  $("job").hidden = $("cancel").hidden = $("progress").hidden = false;
  $("numbers").textContent = $("facts").textContent = "";
  try {
    await task(abort.signal);
  } catch (error) {
    if (abort.signal.aborted) return;
    complain(error instanceof Refusal ? error.message : "The server cannot be reached: try again.");
    $("job").hidden = true;
    $("again").hidden = false;
    $("options").hidden = work.file === null;
  } finally {
    if (work.abort === abort) work.abort = null;
  }
}

async function upscale(signal) {
  const { file } = work;
  const options = {
    scale: choice("scale"),
    time_factor: choice("time_factor"),
    model: $("model").value,
    container: $("container").value,
  };
  $("progress").value = 0;
  const address = await upload(file, signal, (offset) => {
    $("state").textContent = "Uploading";
    $("progress").value = offset / file.size;
    $("numbers").textContent = `${bytesText(offset)} of ${bytesText(file.size)}`;
  });
  const identifier = address.split("/").pop();
  const headers = { "Content-Type": "application/json", "Idempotency-Key": identifier };
  const body = JSON.stringify({ upload: identifier, ...options });
  const answer = await patiently(signal, () => call("/v1/jobs", { method: "POST", headers, body, signal }));
  const job = await answer.json();
  uploads.drop(file);
  location.hash = job.id;
  await follow(job.links.self, signal);
}

async function cancel() {
  const address = location.hash ? `/v1/jobs/${location.hash.slice(1)}` : uploads.get(work.file);
  work.abort?.abort();
  if (work.file) uploads.drop(work.file);
  reset();
  if (address) await call(address, { method: "DELETE", headers: TUS }).catch(() => {}); // it may be gone
}

function reset() {
  work.abort?.abort();
  Object.assign(work, { file: null, abort: null });
  Object.assign(view, { playable: false, shown: "", preview: null, stills: null });
  after.onerror = after.onloadeddata = null;
  URL.revokeObjectURL(before.src);
  for (const video of [before, after]) {
    video.removeAttribute("src");
    video.load();
    video.hidden = false;
  }
  history.replaceState(null, "", location.pathname);
  $("file").value = "";
  $("seek").setAttribute("aria-label", "Time");
  for (const id of ["compare", "after-layer", "before-still", "after-still", "transport", "options", "job", "again"]) $(id).hidden = true;
  $("drop").hidden = $("play").hidden = false;
  complain("");
  $("file").focus();
}

function connectPage() {
  $("file").onchange = () => choose($("file").files[0]);
  let depth = 0; // of the element that a file is dragged over
  const dragging = (change) => document.body.classList.toggle("dragging", (depth += change) > 0);
  addEventListener("dragenter", () => dragging(1));
  addEventListener("dragleave", () => dragging(-1));
  addEventListener("dragover", (event) => event.preventDefault());
  addEventListener("drop", (event) => {
    event.preventDefault();
    dragging(-depth);
    choose(event.dataTransfer.files[0]);
  });
  $("options").onsubmit = (event) => {
    event.preventDefault();
    run(upscale);
  };
  $("cancel").onclick = cancel;
  $("again").onclick = reset;
}

connectPage();
connectComparison();
loadOptions().catch((error) => complain(error.message));
if (/^#[0-9a-f-]{36}$/.test(location.hash)) run((signal) => follow(`/v1/jobs/${location.hash.slice(1)}`, signal));
