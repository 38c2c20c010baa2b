"""Options of reading: fields, damage and repeated frames, from the command line to the printed and the JSON report."""

import json
from pathlib import Path

import av

from tests.support.commands import assert_one_clear_error, stvsr
from tests.support.faulty import damage_packet, interlaced, smooth_pan, write_gray

FRAMES = smooth_pan(24, (48, 64))


def test_interlaced_video_is_deinterlaced_with_a_note(toy: Path, tmp_path: Path) -> None:
    clip = write_gray(tmp_path / "clip.mp4", interlaced(FRAMES), flags="tff")
    out = tmp_path / "out.mp4"
    done = stvsr("upscale", clip, "-o", out, "-m", toy, "-s", "1", "-t", "1")
    assert done.returncode == 0, done.stderr
    assert "24 -> 24 frames, 50 fps" in done.stdout
    assert "Note: The video is interlaced, by its flags: bwdif made a progressive frame of each field" in done.stderr
    with av.open(str(out)) as video:
        frames = list(video.decode(video=0))
    assert len(frames) == 24
    assert not any(frame.interlaced_frame for frame in frames)
    single = stvsr("upscale", clip, "-o", tmp_path / "s.mp4", "-m", toy, "-t", "1", "--field-rate", "single", "--json")
    assert json.loads(single.stdout)["frames_in"] == 12


def test_damage_ends_a_run_or_is_listed(toy: Path, tmp_path: Path) -> None:
    options = {"g": "8", "bf": "0"}
    damage_packet(write_gray(tmp_path / "clip.mp4", FRAMES, options=options), tmp_path / "damaged.mp4", 10, "all")
    command = ["upscale", tmp_path / "damaged.mp4", "-o", tmp_path / "out.mp4", "-m", toy, "-s", "1"]
    stopped = stvsr(*command)
    assert_one_clear_error(stopped, "damaged.mp4 is damaged at 0.400 s", "--on-damage repeat")
    assert not (tmp_path / "out.mp4").exists()
    done = stvsr(*command, "--on-damage", "repeat", "--json")
    report = json.loads(done.stdout)
    assert (report["frames_in"], report["frames_out"]) == (24, 48)
    (repair,) = report["repairs"]
    assert (repair["stream"], repair["start_s"], repair["lost"], repair["action"]) == ("video", 0.4, 1, "repeated")
    printed = stvsr(*command, "--overwrite", "--on-damage", "skip")
    assert "23 -> 46 frames" in printed.stdout
    assert "Note: 1 frame of the video from 0.400 to 0.440 s was damaged, and left out" in printed.stderr


def test_repeated_frames_are_counted(toy: Path, tmp_path: Path) -> None:
    order = [*(n // 2 for n in range(12)), *[6] * 12, 7]
    clip = write_gray(tmp_path / "clip.mp4", [FRAMES[n] for n in order])
    out = tmp_path / "out.mp4"
    done = stvsr("upscale", clip, "-o", out, "-m", toy, "-s", "1", "--dedup")
    assert done.returncode == 0, done.stderr
    assert "25 -> 50 frames" in done.stdout
    assert "6 repeated frames were interpolated over; 9 frames of still pictures stay still." in done.stdout


def test_unknown_values_are_refused(short: Path, toy: Path, tmp_path: Path) -> None:
    for option in ("--deinterlace", "--field-rate", "--on-damage"):
        done = stvsr("upscale", short, "-o", tmp_path / "out.mp4", "-m", toy, option, "wrong")
        assert_one_clear_error(done, f"{option} is 'wrong': choose one of")
