"""Folders of images and videos: every sample is the pixels that were written, everything else is named."""

import csv
import os
import shutil
import sys
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from rlm.errors import InputError
from rlm.labels.folders import load_image_folder
from rlm.labels.samples import divide
from rlm.labels.videos import load_video_folder

SPORTS = ("Archery", "Biking", "Diving")
NAMES = ("g01_c01", "g01_c02", "g02_c01")
LENGTH = 21


def brightness(sport, number, frame):
    """Of a whole frame; 3 of the grey levels are left to the codec."""
    return 20 + 60 * sport + 15 * number + 4 * frame


def encode(path, pictures, codec="mpeg4", packets=()):
    """A video of grey or colour pictures, and then of raw packets."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=25)
        stream.height, stream.width = pictures[0].shape[:2]
        stream.pix_fmt, stream.bit_rate = "yuvj420p" if codec == "mjpeg" else "yuv420p", 4_000_000
        for picture in pictures:
            frame = av.VideoFrame.from_ndarray(picture, format="gray" if picture.ndim == 2 else "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
        for number, content in enumerate(packets, len(pictures)):
            packet = av.Packet(content)
            packet.stream, packet.dts, packet.pts, packet.time_base = stream, number, number, Fraction(1, 25)
            container.mux(packet)


def grey(levels, height=24, width=32):
    return [np.full((height, width), level, np.uint8) for level in levels]


def levels_of(clip):
    """The brightness of each frame, which is the same all over."""
    assert np.ptp(clip, axis=(-2, -1)).max() <= 4
    return clip.mean(axis=(-2, -1)).tolist()


def near(levels):
    return pytest.approx(levels, abs=3)


def save(path, pixels):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.asarray(pixels, np.uint8)).save(path)


def listed(samples):
    return dict(samples.skipped.to_numpy().tolist())


@pytest.fixture(scope="module")
def encoded(tmp_path_factory):
    """Three classes of three clips, named as those of UCF101."""
    folder = tmp_path_factory.mktemp("videos") / "UCF-101"
    for sport, title in enumerate(SPORTS):
        for number, name in enumerate(NAMES):
            levels = [brightness(sport, number, frame) for frame in range(LENGTH)]
            encode(folder / title / f"v_{title}_{name}.avi", grey(levels))
    return folder


@pytest.fixture
def videos(encoded, tmp_path):
    """A copy to change."""
    return shutil.copytree(encoded, tmp_path / "UCF-101")


@pytest.fixture
def ucf_split(tmp_path):
    """Writes both lists; the third clips are tested on."""

    def write(train=(), test=(), number="01", **style):
        folder = tmp_path / "ucfTrainTestlist"
        folder.mkdir(exist_ok=True)
        lines = [f"{t}/v_{t}_{n}.avi {i}" for i, t in enumerate(SPORTS, 1) for n in NAMES[:2]]
        (folder / f"trainlist{number}.txt").write_text("\n".join([*lines, *train]), **style)
        lines = [f"{t}/v_{t}_{NAMES[2]}.avi" for t in SPORTS]
        (folder / f"testlist{number}.txt").write_text("\n".join([*lines, *test]), **style)
        return folder

    return write


@pytest.fixture
def hmdb(encoded, tmp_path):
    """Two classes with names as odd as the real ones, and the folder of their split."""
    folder, splits = tmp_path / "hmdb51_org", tmp_path / "splits [1]"
    splits.mkdir()
    for title, source in (("brush_hair", "Archery"), ("clap", "Diving")):
        (folder / title).mkdir(parents=True)
        lines = []
        for number, name in enumerate(NAMES):
            clip = f"#20_50' (first) & [süß] {title}_u_nm_np1_ba_goo_{number}.avi"
            shutil.copy(encoded / source / f"v_{source}_{name}.avi", folder / title / clip)
            lines.append(f"{clip} {(1, 2, 0)[number]} ")
        (splits / f"{title}_test_split1.txt").write_text("\n".join(lines) + "\n\n", encoding="utf-8")
        (splits / f"{title}_test_split2.txt").write_text("no line of this file is read")
    return folder, splits


@pytest.fixture
def images(tmp_path):
    """Two classes of three images of 5 x 4 pixels, and what is written in them."""
    written = np.random.default_rng(0).integers(256, size=(6, 4, 5)).astype(np.uint8)
    paths = ["cat/a.png", "cat/b.PNG", "cat/more/deep/c.bmp", "dog/a.png", "dog/b.tif", "dog/z.pgm"]
    for path, pixels in zip(paths, written, strict=True):
        save(tmp_path / "pets" / path, pixels)
    return tmp_path / "pets", written


class TestImages:
    def test_samples_are_the_pixels_in_order_of_their_paths(self, images):
        folder, written = images
        save(folder / ".hidden" / "b.png", written[0])
        save(folder / "cat" / ".thumbnails" / "x.png", written[0])
        (folder / "cat" / "._a.png").write_bytes(b"Mac OS X")
        (folder / "cat" / "notes.txt").write_text("not an image")
        (folder / "readme.txt").write_text("not a class")
        found = load_image_folder(folder)
        assert found.inputs.dtype == np.uint8
        assert found.inputs.tolist() == written[:, None].tolist()
        assert (found.classes, found.labels.tolist()) == (("cat", "dog"), [0, 0, 0, 1, 1, 1])
        assert found.official is None
        assert found.groups is None
        assert found.about == {"name": "pets", "title": "Images of pets, 2 classes", "licence": "unknown"}
        assert listed(found) == {
            "readme.txt": "beside the folders of classes",
            ".hidden/b.png": "hidden",
            "cat/._a.png": "hidden",
            "cat/.thumbnails/x.png": "hidden",
            "cat/notes.txt": "has another suffix than those of images",
        }

    def test_colours_are_channels(self, tmp_path):
        pixels = np.random.default_rng(1).integers(256, size=(4, 3, 2, 3)).astype(np.uint8)
        for number, picture in enumerate(pixels):
            save(tmp_path / "ab"[number // 2] / f"{number}.png", picture)
        found = load_image_folder(tmp_path, colour=True).inputs
        assert found.shape == (4, 3, 3, 2)
        for channel in range(3):
            assert found[:, channel].tolist() == pixels[..., channel].tolist()
        luma = pixels @ np.array([0.299, 0.587, 0.114])  # ITU-R 601-2
        np.testing.assert_allclose(load_image_folder(tmp_path).inputs[:, 0], luma, atol=1)

    @pytest.mark.parametrize(
        "parts",
        [
            ("train", "test"),
            ("train", "valid", "test"),
            ("TRAIN", "Val", "Test"),
            ("train", "validation", "test"),
            ("training", "dev", "testing"),
            ("training_set", "test_set"),
            ("train2017", "val2017", "test2017"),
        ],
    )
    def test_folders_of_parts_are_an_official_split(self, parts, tmp_path):
        for number, part in enumerate(parts):
            for title in ("cat", "dog"):
                save(tmp_path / part / title / "a.png", np.full((2, 2), number))
        found = load_image_folder(tmp_path)
        assert found.classes == ("cat", "dog")
        by_part = {(parts[found.inputs[row].max()], found.classes[found.labels[row]]) for row in range(len(found))}
        assert by_part == {(part, title) for part in parts for title in ("cat", "dog")}
        roles = ("train", "validation", "test") if len(parts) == 3 else ("train", "test")
        assert found.official.tolist() == [roles[level] for level in found.inputs.max(axis=(1, 2, 3))]

    def test_every_seed_validates_on_the_given_part(self, tmp_path, rlm_command):
        rng = np.random.default_rng(0)
        for part, count in (("train", 6), ("valid", 3), ("test", 4)):
            for number in range(count):
                for level, title in ((60, "cat"), (180, "dog")):
                    save(tmp_path / "pets" / part / title / f"{number}.png", rng.normal(level, 20, (6, 6)).clip(0, 255))
        samples = load_image_folder(tmp_path / "pets")
        for seed in (0, 1):
            parts = divide(samples, seed)[0]
            assert [len(rows) for rows in parts] == [12, 6, 8]
            for part, rows in parts._asdict().items():
                assert set(samples.official[rows]) == {part}
        settings = ["--encoder", "mlp", "--max-epochs", 1, "--shuffles", 1, "--jobs", 1]
        code, printed, _ = rlm_command("labels", "--images", tmp_path / "pets", "--seeds", 2, *settings)
        assert code == 0
        assert "Images of pets, 2 classes: 26 samples, 2 classes" in printed
        assert "given split: 12 train, 6 validation, 8 test" in printed
        assert "All seeds have the given split" in printed
        assert "Every seed has its own split" not in printed
        shutil.rmtree(tmp_path / "pets" / "valid")
        code, printed, _ = rlm_command("labels", "--images", tmp_path / "pets", "--seeds", 2, *settings)
        assert code == 0
        assert "All seeds have the given test samples: the intervals cover the choice of seed, not of test" in printed

    @pytest.mark.parametrize(
        ("paths", "words"),
        [
            (["train/cat", "test/cat", "extra/cat"], r"found extra beside test, train; move these, or rename"),
            (["train/cat", "test/cat", "bird"], "found bird beside test, train"),
            (["train/cat", "train/dog", "test/cat", "test/Dog"], "differ in more than capitals, found 'Dog' and 'dog'"),
            (["cat", "Cat"], "differ in more than capitals, found 'Cat' and 'cat'"),
            (["caf\u00e9", "cafe\u0301"], "differ in more than capitals"),
            (
                ["cat/train", "cat/test", "dog/train", "dog/test"],
                "found folders test, train in cat, dog; name the upper",
            ),
            (["fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog"], "found folders cat, dog in fold1, fold2; name the"),
            (["tr/cat", "tr/dog", "tr/owl", "te/cat", "te/dog"], "found folders cat, dog in te, tr; name the"),
            (["fold1", "fold1/cat", "fold1/dog", "fold2/cat", "fold2/dog"], "found folders cat, dog in fold1, fold2"),
            (["cat", "cat/train", "cat/test", "dog/train", "dog/test"], "found folders test, train in cat, dog"),
            (["train", "test"], "at least two classes, found none"),
            (["valid/cat", "test/cat"], "expected the folders train and test .* found only test, valid; add"),
            (
                ["train/cat", "train/dog", "test/cat", "test/dog", "val/dog"],
                r"found cat \(1 train, 0 validation, 1 test\)",
            ),
        ],
    )
    def test_folders_that_may_be_parts_or_classes_are_refused_by_name(self, paths, words, tmp_path):
        for path in paths:
            save(tmp_path / path / "a.png", [[1]])
        if len(list(tmp_path.iterdir())) < len({path.split("/")[0] for path in paths}):
            pytest.skip("this file system does not tell such names apart")
        with pytest.raises(InputError, match=words):
            load_image_folder(tmp_path)

    def test_a_class_may_be_called_train(self, tmp_path):
        for path in ("train", "bus", "car/old"):
            for number in range(2):
                save(tmp_path / path / f"{number}.png", [[1]])
        assert load_image_folder(tmp_path).classes == ("bus", "car", "train")

    def test_links_are_followed_from_the_top_and_named_below(self, images):
        folder, written = images
        (folder.parent / "elsewhere").mkdir()
        save(folder.parent / "elsewhere" / "e.png", written[0])
        (folder / "cat" / "loop").symlink_to(folder)
        (folder / "dog" / "gone.png").symlink_to(folder / "none.png")
        save(folder.parent / "emus" / "a.png", written[0])
        save(folder.parent / "emus" / "b.png", written[0])
        (folder / "emu").symlink_to(folder.parent / "emus")
        found = load_image_folder(folder)
        assert found.classes == ("cat", "dog", "emu")
        assert len(found) == 8
        assert listed(found) == {
            "cat/loop": "a link to a folder, which is not followed",
            "dog/gone.png": "is a link that leads nowhere, or no file",
        }

    def test_images_are_resized_without_aliasing(self, tmp_path):
        chequered = np.indices((64, 96)).sum(axis=0) % 2 * 255
        for number, pixels in enumerate([chequered, np.full((3, 40), 10), chequered[:32, :32], np.full((64, 64), 99)]):
            save(tmp_path / "ab"[number // 2] / f"{number}.png", pixels)
        found = load_image_folder(tmp_path, size=8).inputs
        assert found.shape == (4, 1, 8, 8)
        for picture, level in zip(found, (127.5, 10, 127.5, 99), strict=True):
            np.testing.assert_allclose(picture, level, atol=4)

    def test_unequal_sizes_are_refused(self, images):
        folder, written = images
        save(folder / "dog" / "c.png", written[0][:3])
        with pytest.raises(
            InputError, match=r"found 5 x 4 pixels \(cat/a\.png\) and 5 x 3 \(dog/c\.png\); pass size= to resize"
        ):
            load_image_folder(folder)
        assert load_image_folder(folder, size=3).inputs.shape == (7, 1, 3, 3)

    def test_damaged_files_are_skipped_and_listed(self, images, monkeypatch):
        folder, written = images
        whole = (folder / "dog" / "a.png").read_bytes()
        (folder / "cat" / "aa.png").write_bytes(whole[: len(whole) // 2])
        (folder / "cat" / "empty.jpg").write_bytes(b"")
        Image.fromarray(written[0].astype(np.float32)).save(folder / "dog" / "float.tif")
        save(folder / "dog" / "huge.png", np.zeros((60, 60)))
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
        found = load_image_folder(folder)
        assert found.inputs.tolist() == written[:, None].tolist()
        assert found.labels.tolist() == [0, 0, 0, 1, 1, 1]
        reasons = listed(found)
        assert list(reasons) == ["cat/aa.png", "cat/empty.jpg", "dog/float.tif", "dog/huge.png"]
        assert "cannot be decoded (cannot identify" in reasons["cat/empty.jpg"]
        assert "pixels of type F" in reasons["dog/float.tif"]
        assert "exceeds limit of 2000 pixels" in reasons["dog/huge.png"]

    def test_names_need_not_be_text(self, images):
        folder, written = images
        try:
            path = folder / os.fsdecode(b"dog/caf\xe9 \x1b[2J.png")
            path.write_bytes(b"")
        except (OSError, UnicodeError):
            pytest.skip("this file system has no such names")
        found = load_image_folder(folder)
        assert found.skipped["path"].tolist() == ["dog/caf? ?[2J.png"]
        save(path, written[0])
        assert load_image_folder(folder).inputs[5, 0].tolist() == written[0].tolist()

    def test_sixteen_bits_become_eight(self, images):
        folder, written = images
        Image.fromarray(written[0].astype(np.uint16) * 257).save(folder / "cat" / "a.png")
        assert load_image_folder(folder).inputs[0, 0].tolist() == written[0].tolist()

    def test_photos_are_turned_upright(self, images):
        folder, written = images
        turned = Image.fromarray(np.rot90(written[0]))
        exif = turned.getexif()
        exif[0x0112] = 6  # to be turned by a quarter, clockwise
        turned.save(folder / "cat" / "a.png", exif=exif)
        assert load_image_folder(folder).inputs[0, 0].tolist() == written[0].tolist()

    def test_folders_without_classes_are_refused(self, tmp_path):
        with pytest.raises(InputError, match=r"one sub-folder per class, found none at .*nowhere; correct the path"):
            load_image_folder(tmp_path / "nowhere")
        save(tmp_path / "a.png", [[1]])
        with pytest.raises(InputError, match="for each of at least two classes, found none; give the folder that"):
            load_image_folder(tmp_path)
        save(tmp_path / "cat" / "a.png", [[1]])
        with pytest.raises(InputError, match="at least two classes, found cat; give the folder that holds"):
            load_image_folder(tmp_path)
        (tmp_path / "cat" / "a.png").unlink()
        (tmp_path / "dog").mkdir()
        with pytest.raises(InputError, match=r"expected images \(\.bmp, .*\) in the 2 sub-folders .*found none"):
            load_image_folder(tmp_path)

    def test_a_part_alone_is_refused(self, tmp_path):
        for part in ("train", "val"):
            save(tmp_path / part / "cat" / "a.png", [[1]])
        with pytest.raises(InputError, match=r"expected the folders train and test .* found only train, val; add"):
            load_image_folder(tmp_path)

    def test_classes_that_cannot_be_both_trained_and_tested_are_refused(self, images):
        folder, written = images
        save(folder / "emu" / "a.png", written[0])
        (folder / "emu" / "b.png").write_bytes(b"damaged")
        (folder / "yak").mkdir()
        with pytest.raises(InputError, match=r"at least two usable .*found yak \(0\); remove the folder or add"):
            load_image_folder(folder)
        (folder / "yak").rmdir()
        with pytest.raises(InputError, match=r"found emu \(1\); .*\(1 files were skipped, such as emu/b\.png: cannot"):
            load_image_folder(folder)

    def test_a_class_that_a_part_lacks_is_refused(self, tmp_path):
        for path in ("train/cat", "train/dog", "train/dog/more", "test/cat"):
            save(tmp_path / path / "a.png", [[1]])
        with pytest.raises(InputError, match=r"both parts of the official split, found dog \(2 train, 0 test\); rem"):
            load_image_folder(tmp_path)

    def test_sizes_begin_at_one(self, images):
        with pytest.raises(InputError, match="expected size to be an integer of at least 1, found 0"):
            load_image_folder(images[0], size=0)


class TestVideos:
    def test_clips_are_the_middle_of_their_videos(self, encoded):
        found = load_video_folder(encoded, frames=4, every=3, size=6)
        assert found.inputs.shape == (9, 1, 4, 6, 6)
        assert found.inputs.dtype == np.uint8
        assert (found.classes, found.labels.tolist()) == (SPORTS, [0, 0, 0, 1, 1, 1, 2, 2, 2])
        for row, clip in enumerate(found.inputs):
            # Ten of 21 frames, with five before them and six behind.
            assert levels_of(clip[0]) == near([brightness(row // 3, row % 3, frame) for frame in (5, 8, 11, 14)])
        assert found.official is None
        assert listed(found) == {}
        assert found.about == {"name": "UCF-101", "title": "Videos of UCF-101, 3 classes", "licence": "unknown"}

    @pytest.mark.parametrize(("frames", "every", "first"), [(1, 1, 10), (21, 1, 0), (20, 1, 0), (11, 2, 0), (2, 7, 6)])
    def test_any_length_has_its_middle(self, frames, every, first, encoded):
        found = load_video_folder(encoded, frames=frames, every=every, size=8)
        expected = [brightness(1, 2, first + every * step) for step in range(frames)]
        assert levels_of(found.inputs[5, 0]) == near(expected)

    def test_colours_are_channels(self, tmp_path):
        picture = np.zeros((32, 32, 3), np.uint8)
        picture[:, :16], picture[:, 16:] = (200, 30, 30), (30, 30, 200)
        for name in ("a/1.mp4", "a/2.mkv", "b/1.mov", "b/2.MPG"):
            encode(tmp_path / name, [picture] * 6, "mpeg2video" if name.endswith("MPG") else "mpeg4")
        found = load_video_folder(tmp_path, frames=4, size=4, colour=True).inputs
        assert found.shape == (4, 3, 4, 4, 4)
        expected = np.broadcast_to(picture[::8, ::8].transpose(2, 0, 1)[:, None], (3, 4, 4, 4))
        # Beside the border between the colours they are mixed.
        np.testing.assert_allclose(found[..., [0, 3]], np.stack([expected] * 4)[..., [0, 3]], atol=4)

    def test_clips_of_one_film_are_a_group(self, encoded):
        groups = load_video_folder(encoded, frames=2, size=2).groups.tolist()
        films = [(sport, film) for sport in SPORTS for film in ("g01", "g01", "g02")]
        pairs = [(i, j) for i in range(9) for j in range(9)]
        assert [groups[i] == groups[j] for i, j in pairs] == [films[i] == films[j] for i, j in pairs]

    def test_other_names_are_groups_of_their_own(self, videos):
        (videos / "Diving" / "v_Diving_g01_c02.avi").rename(videos / "Diving" / "own.avi")
        groups = load_video_folder(videos, frames=2, size=2).groups
        assert groups[6] not in np.delete(groups, 6)
        for number, path in enumerate(sorted(videos.rglob("*.avi"))):
            path.rename(path.with_name(f"{number}.avi"))
        assert load_video_folder(videos, frames=2, size=2).groups is None

    def test_short_and_damaged_videos_are_skipped_and_listed(self, videos):
        encode(videos / "Archery" / "a.avi", grey([50] * 12))
        (videos / "Biking" / "b.mp4").write_bytes(b"no video")
        (videos / "Diving" / "list.avi").write_text("ffconcat version 1.0\nfile http://127.0.0.1:9/x.avi\n")
        with av.open(str(videos / "Diving" / "sound.mkv"), "w") as container:
            sound = container.add_stream("pcm_s16le", rate=8000, layout="mono")
            frame = av.AudioFrame.from_ndarray(np.zeros((1, 400), np.int16), format="s16", layout="mono")
            frame.sample_rate = 8000
            container.mux(sound.encode(frame))
        found = load_video_folder(videos, frames=5, every=4, size=4)
        reasons = listed(found)
        assert list(reasons) == ["Archery/a.avi", "Biking/b.mp4", "Diving/list.avi", "Diving/sound.mkv"]
        assert reasons["Archery/a.avi"] == "too short: 12 frames, 17 are needed"
        assert "cannot be decoded (" in reasons["Biking/b.mp4"]
        assert "Invalid data" in reasons["Biking/b.mp4"]
        assert reasons["Diving/sound.mkv"] == "has no video"
        assert found.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        assert [levels_of(clip[0])[0] for clip in found.inputs] == near(
            [brightness(sport, number, 2) for sport in range(3) for number in range(3)]
        )

    def test_packets_without_a_frame_do_not_move_the_middle(self, videos):
        # MPEG-4 "not coded" pictures, of which DivX files have one behind each packet of two frames: type P, time
        # increment 13, marker, not coded, stuffing.
        uncoded = b"\0\0\1\xb6" + bytes([0b01_0_1_0110, 0b1_1_0_01111])
        path = videos / "Archery" / "a.avi"
        encode(path, grey(range(20, 200, 15)), packets=[uncoded] * 20)
        with av.open(str(path)) as container:
            assert sum(packet.size > 0 for packet in container.demux(video=0)) == 32
        found = load_video_folder(videos, frames=8, size=4)
        # The decoder gives 12 frames, or repeats the last: two are before the clip of eight.
        assert levels_of(found.inputs[0, 0]) == near(range(50, 170, 15))
        reasons = listed(load_video_folder(videos, frames=16, size=4))
        assert reasons["Archery/a.avi"] in [f"too short: {count} frames, 16 are needed" for count in (12, 13)]

    def test_videos_have_folders_of_parts_too(self, videos, ucf_split):
        for part in ("train", "test"):
            shutil.copytree(videos, videos.parent / "parts" / part)
        found = load_video_folder(videos.parent / "parts", frames=2, size=2)
        assert found.classes == SPORTS
        assert sorted(found.official.tolist()) == ["test"] * 9 + ["train"] * 9
        with pytest.raises(
            InputError, match=r"one official split, found folders of train and test in .* beside .*trainlist01"
        ):
            load_video_folder(videos.parent / "parts", splits=ucf_split() / "trainlist01.txt")

    def test_a_class_of_short_videos_is_refused_with_the_reason(self, videos):
        for path in (videos / "Biking").iterdir():
            encode(path, grey([9] * 3))
        with pytest.raises(InputError, match=r"found Biking \(0\); .*such as Biking/.*: too short: 3 frames, 8"):
            load_video_folder(videos, frames=8)

    def test_settings_begin_at_one(self, encoded):
        for name in ("frames", "every", "size"):
            with pytest.raises(InputError, match=f"expected {name} to be an integer of at least 1, found 0"):
                load_video_folder(encoded, **{name: 0})

    def test_a_missing_decoder_is_named(self, encoded, monkeypatch):
        monkeypatch.setitem(sys.modules, "av", None)
        with pytest.raises(InputError, match=r"expected the package av, .*pip install 'rlm\[video\]'"):
            load_video_folder(encoded)


class TestSplits:
    @pytest.mark.parametrize("given", ["trainlist02.txt", "testlist02.txt"])
    @pytest.mark.parametrize("style", [{}, {"newline": "\r\n"}, {"encoding": "utf-8-sig"}])
    def test_ucf101(self, given, style, encoded, ucf_split):
        folder = ucf_split(number="02", train=["", "  ", ""], **style)
        found = load_video_folder(encoded, frames=2, size=2, splits=folder / given)
        assert found.official.tolist() == ["train", "train", "test"] * 3
        assert found.labels.tolist() == [0, 0, 0, 1, 1, 1, 2, 2, 2]
        assert listed(found) == {}

    @pytest.mark.parametrize("given", ["brush_hair_test_split1.txt", "clap_test_split1.txt"])
    def test_hmdb51(self, given, hmdb):
        folder, splits = hmdb
        found = load_video_folder(folder, frames=2, size=2, splits=str(splits / given))
        assert found.classes == ("brush_hair", "clap")
        assert found.official.tolist() == ["train", "test"] * 2
        assert found.groups is None
        assert [levels_of(clip[0])[0] for clip in found.inputs] == near(
            [brightness(sport, number, 9) for sport in (0, 2) for number in (0, 1)]
        )
        unused = [f"{title}/#20_50' (first) & [süß] {title}_u_nm_np1_ba_goo_2.avi" for title in found.classes]
        assert listed(found) == dict.fromkeys(unused, "unused by the split")

    def test_videos_outside_the_split_are_left_out(self, videos, ucf_split):
        shutil.copy(videos / "Diving" / "v_Diving_g01_c01.avi", videos / "Diving" / "extra.avi")
        found = load_video_folder(videos, frames=2, size=2, splits=ucf_split() / "trainlist01.txt")
        assert len(found) == 9
        assert listed(found) == {"Diving/extra.avi": "not in the split"}

    def test_capitals_do_not_matter(self, videos, ucf_split):
        splits = ucf_split() / "trainlist01.txt"
        for path in (videos / "Diving").iterdir():
            path.rename(path.with_name(path.name.replace("v_Diving", "v_DiVing")))
        assert len(load_video_folder(videos, frames=2, size=2, splits=splits)) == 9

    def test_videos_that_the_folder_lacks_are_named(self, encoded, ucf_split):
        lines = [f"Rowing/v_Rowing_g01_c{number:02}.avi 4" for number in range(7)]
        with pytest.raises(
            InputError,
            match=r"expected 16 videos of the split under .*UCF-101, 7 are missing: Rowing/v_Rowing_g01_c00\.avi; .*"
            r"c04\.avi; 2 more; download them, or remove the lines",
        ):
            load_video_folder(encoded, splits=ucf_split(train=lines) / "trainlist01.txt")

    def test_unused_videos_need_not_be_there(self, hmdb):
        folder, splits = hmdb
        for path in folder.rglob("*goo_2.avi"):
            path.unlink()
        assert len(load_video_folder(folder, frames=2, size=2, splits=splits / "clap_test_split1.txt")) == 4

    @pytest.mark.parametrize("line", ["no slash.avi 1", "Diving/", "Diving/no_suffix 1", "Diving/a.avi one"])
    def test_malformed_lines_of_ucf101_are_named(self, line, encoded, ucf_split):
        splits = ucf_split(train=["", line]) / "testlist01.txt"
        with pytest.raises(
            InputError, match=rf"trainlist01\.txt:8: expected 'Class/video.avi 1', found '{line}'; correct"
        ):
            load_video_folder(encoded, splits=splits)

    @pytest.mark.parametrize("line", ["a.avi", "a.avi 3", "1", "clap/a.avi 1"])
    def test_malformed_lines_of_hmdb51_are_named(self, line, hmdb):
        folder, splits = hmdb
        (splits / "clap_test_split1.txt").write_text(f"a.avi 1\n{line}\n")
        with pytest.raises(
            InputError, match=rf"clap_test_split1\.txt:2: expected 'video.avi 1', found '{line}'; correct"
        ):
            load_video_folder(folder, splits=splits / "brush_hair_test_split1.txt")

    def test_a_video_in_both_parts_is_refused(self, encoded, ucf_split):
        splits = ucf_split(test=["Diving/v_Diving_g01_c01.avi"])
        with pytest.raises(
            InputError,
            match=r"testlist01\.txt:4: expected each .*'Diving/v_Diving_g01_c01\.avi' in train and test;",
        ):
            load_video_folder(encoded, splits=splits / "trainlist01.txt")

    def test_other_files_are_refused(self, encoded, ucf_split, hmdb):
        folder = ucf_split()
        for name in ("classInd.txt", "", "trainlist01.csv"):
            with pytest.raises(InputError, match=r"trainlist01\.txt or testlist01\.txt.*CLASS_test_split1\.txt"):
                load_video_folder(encoded, splits=folder / name)
        (folder / "testlist01.txt").unlink()
        with pytest.raises(InputError, match=r"a file of the split at .*testlist01\.txt, found: .*; put it there"):
            load_video_folder(encoded, splits=folder / "trainlist01.txt")
        with pytest.raises(InputError, match=r"a file of the split at .*kiss_test_split1\.txt, found: .*; put it"):
            load_video_folder(hmdb[0], splits=hmdb[1] / "kiss_test_split1.txt")
        (folder / "testlist01.txt").write_bytes("Tür/v.avi".encode("cp1252"))
        with pytest.raises(InputError, match=r"a file of the split at .*testlist01\.txt, found: 'utf-8' codec"):
            load_video_folder(encoded, splits=folder / "trainlist01.txt")

    def test_a_class_without_a_tested_video_is_refused(self, videos, ucf_split, hmdb):
        splits = ucf_split() / "trainlist01.txt"
        (videos / "Diving" / "v_Diving_g02_c01.avi").write_bytes(b"damaged")
        with pytest.raises(InputError, match=r"both parts .*Diving \(2 train, 0 test\); .*g02_c01\.avi: cannot"):
            load_video_folder(videos, frames=2, size=2, splits=splits)
        (hmdb[1] / "clap_test_split1.txt").unlink()
        with pytest.raises(InputError, match=r"found clap \(0 train, 0 test\); .*: not in the split\)"):
            load_video_folder(hmdb[0], splits=hmdb[1] / "brush_hair_test_split1.txt")


YOUTUBE = {"kicking a ball": "-Ab_c", "clay, pottery": "-ab_c", "waltz": "d-E2f4"}


@pytest.fixture
def kinetics(encoded, tmp_path):
    """Three classes of three clips, in folders of no meaning, and a writer of their list."""
    rows = []
    for title, (label, video) in zip(SPORTS, YOUTUBE.items(), strict=True):
        for number, name in enumerate(NAMES):
            start, end, one = 10 * number + 7, 10 * number + 17, f"{video}{number}" if number else video
            path = tmp_path / "k400" / ("a" if number else "b/c") / f"{one}_{start:06d}_{end:06d}.mp4"
            path.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(encoded / title / f"v_{title}_{name}.avi", path)
            rows.append((label, one, start, end, ("train", "validate", "test")[number]))

    def write(*more, name="k400.csv", keep=5, header=("label", "youtube_id", "time_start", "time_end", "split")):
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows([header[:keep], *(row[:keep] for row in [*rows, *more])])
        return tmp_path / name

    return tmp_path / "k400", write


class TestLists:
    def test_kinetics(self, kinetics):
        """The clips of each line by its name, wherever it lies; what is not there is counted and named."""
        folder, write = kinetics
        lost = [("waltz", "gone", 5, 15, "train"), ("singing", "lost", 100, 110, "test"), ("", "d-E2f4", 7, 18, "test")]
        shutil.copy(folder / "a" / "d-E2f41_000017_000027.mp4", folder / "other.mp4")
        found = load_video_folder(folder, frames=2, size=2, splits=write(*lost))
        assert found.classes == ("clay, pottery", "kicking a ball", "waltz")
        assert listed(found) == {
            "gone_000005_000015.mp4": "missing",
            "lost_000100_000110.mp4": "missing",
            "d-E2f4_000007_000018.mp4": "has no label",
            "other.mp4": "not in the split",
        }
        order = [list(YOUTUBE).index(found.classes[label]) for label in found.labels]
        number = [["train", "validation", "test"].index(part) for part in found.official]
        assert sorted(zip(order, number, strict=True)) == [(sport, n) for sport in range(3) for n in range(3)]
        for clip, sport, n in zip(found.inputs, order, number, strict=True):
            assert levels_of(clip[0]) == near([brightness(sport, n, frame) for frame in (9, 10)])

    @pytest.mark.parametrize("keep", [4, 5])
    def test_without_a_split_each_seed_has_its_own_and_no_video_in_two_parts(self, keep, kinetics):
        """Nor with a list of one part alone, as the files of Kinetics are."""
        folder, write = kinetics
        for video in YOUTUBE.values():
            shutil.copy(folder / "b" / "c" / f"{video}_000007_000017.mp4", folder / f"{video}_000007_000018.mp4")
        more = [(label, video, 7, 18, "train") for label, video in YOUTUBE.items()]
        path = write(*more, keep=keep)
        if keep == 5:
            path.write_text(path.read_text().replace("validate", "train").replace(",test", ",train"))
        found = load_video_folder(folder, frames=2, size=2, splits=path)
        assert found.official is None
        assert sorted(np.bincount(found.groups)) == [1] * 6 + [2] * 3
        for seed in range(5):
            parts, _ = divide(found, seed)
            assert sorted(np.concatenate(parts)) == list(range(12))
            groups = [set(found.groups[rows]) for rows in parts]
            assert sum(map(len, groups)) == len(set.union(*groups))

    @pytest.mark.parametrize(
        ("header", "line"),
        [
            ("", "{} {}\n"),
            ("", "{}\t{}\n"),
            ("", "ROOT/{},{}\n"),
            ("path,label\n", "{},{}\n"),
            ("label,path\n", "{1},{0}\n"),
        ],
    )
    def test_paths_and_labels(self, header, line, videos, tmp_path):
        path, text, line = tmp_path / "list.csv", header, line.replace("ROOT", str(videos))
        for place, title in enumerate(SPORTS):
            text += "".join(line.format(f"{title}/v_{title}_{name}.avi", f"c{place}") for name in NAMES)
        path.write_text(text + line.format("Diving/none here.avi", "c0"))
        found = load_video_folder(videos, frames=2, size=2, splits=path)
        assert (found.classes, np.bincount(found.labels).tolist()) == (("c0", "c1", "c2"), [3, 3, 3])
        assert list(listed(found).values()) == ["missing"]
        assert len(set(found.groups.tolist())) == 6  # films, by the names of UCF101

    @pytest.mark.parametrize(
        ("more", "match"),
        [
            (("waltz", "-Ab_c", 7, 17, "train"), r"k400\.csv:11: expected each video with one label, found .*again"),
            (("waltz", "new", 7, 17, "extra"), r":11: expected split train, validate or test, found 'extra'"),
            (
                ("waltz", "new", 7, 17, ""),
                "each line of .* in train, validate or test, .* found none, test, train, val",
            ),
            (("waltz", "new", "x", 17, "train"), ":11: expected seconds in time_start and time_end, found: could not"),
        ],
    )
    def test_malformed_lines_are_named(self, more, match, kinetics):
        folder, write = kinetics
        with pytest.raises(InputError, match=match):
            load_video_folder(folder, splits=write(more))

    def test_what_is_no_list_is_named(self, kinetics, tmp_path):
        folder, write = kinetics
        for splits, match in [
            (write(keep=3), "expected the columns label, youtube_id, time_start, time_end in .*, found no time_end"),
            (write(name="empty.csv", keep=0), "at least two classes of .* found 0 of 0 videos, such as none"),
        ]:
            with pytest.raises(InputError, match=match):
                load_video_folder(folder, splits=splits)
        (tmp_path / "bad.txt").write_text("one\n")
        with pytest.raises(InputError, match=r"bad\.txt:1: expected a path and a label, found 'one'"):
            load_video_folder(folder, splits=tmp_path / "bad.txt")
        path = write()
        path.write_text(path.read_text().replace("test", "validate"))
        with pytest.raises(InputError, match="both train and test, found train, validation; rename parts"):
            load_video_folder(folder, splits=path)
        shutil.copy(folder / "a" / "d-E2f41_000017_000027.mp4", folder / "d-E2f41_000017_000027.mkv")
        with pytest.raises(InputError, match=r"expected one file of each video.* d-E2f41_000017_000027\.mkv; remove"):
            load_video_folder(folder, splits=write())

    def test_the_command_names_what_is_missing(self, kinetics, rlm_command):
        folder, write = kinetics
        lost = [("waltz", f"gone{number}", 5, 15, "train") for number in range(7)]
        code, said, _ = rlm_command(
            "labels", "--videos", folder, "--splits", write(*lost), "--frames", 2, "--size", 4, "--encoder", "mlp",
            "--dim", 4, "--shuffles", 1, "--shuffle-epochs", 1, "--max-epochs", 1, "--seeds", 1, "--jobs", 1,
        )  # fmt: skip
        assert code == 0
        assert "9 samples, 3 classes" in said
        assert "given split: 3 train, 3 validation, 3 test" in said
        assert "7 missing: gone0_000005_000015.mp4, gone1_000005_000015.mp4" in said
        assert "gone4_000005_000015.mp4, 2 more" in said


FOLDERS = 120


def odd_folder(root, rng):
    """A folder of images, and what becomes of every file by rules that are written here once more."""
    has_parts, fates = rng.random() < 0.5, {}
    valid = str(rng.choice(["valid", "val", "Validation", "dev"]))
    parts = [str(rng.choice(["train", "Train", "training"])), "test", *([valid] if rng.random() < 0.5 else [])]
    role = {parts[0]: "train", "test": "test", valid: "validation"}
    for part in parts if has_parts else [""]:
        for title in ("cat", "Dog", "emu bird"):
            for number in range(rng.integers(2, 5)):
                inner = str(rng.choice(["", "", "more", "more/deep", ".trash"])) if number > 1 else ""
                kind = str(rng.choice(["good", "good", "damaged", "text", "hidden"])) if number > 1 else "good"
                name = {"good": f"{number}.PNG", "damaged": f"{number}.png", "text": f"{number}.txt"}
                path = root / part / title / inner / name.get(kind, f".{number}.png")
                save(path.with_suffix(".png"), [[number]])
                if kind != "hidden":
                    path.with_suffix(".png").rename(path)
                if kind == "damaged":
                    path.write_bytes(b"no image")
                reason = {"good": None, "damaged": "cannot be decoded", "text": "another suffix", "hidden": "hidden"}[
                    kind
                ]
                fates[path.relative_to(root).as_posix()] = "hidden" if inner == ".trash" else reason
        if rng.random() < 0.3:
            save(root / part / "beside.png", [[0]])
            fates[(root / part / "beside.png").relative_to(root).as_posix()] = "beside the folders"
        if rng.random() < 0.3:
            save(root / part / ".cache" / "x.png", [[0]])
            fates[(root / part / ".cache" / "x.png").relative_to(root).as_posix()] = "hidden"
    expected = sorted(
        (role[path.split("/")[0]] if has_parts else None, path.split("/")[has_parts], int(path[-5]))
        for path, reason in fates.items()
        if reason is None
    )
    if has_parts and rng.random() < 0.5:
        save(root / "readme.png", [[0]])
        fates["readme.png"] = "beside the folders"
    return expected, {path: reason for path, reason in fates.items() if reason}


def test_every_file_of_a_folder_is_a_sample_or_listed(tmp_path, capsys):
    """Conservation: of each generated folder every file is a sample of its class and part, or skipped with a reason."""
    files = 0
    for seed in range(FOLDERS):
        root = tmp_path / str(seed)
        expected, skipped = odd_folder(root, np.random.default_rng(seed))
        found = load_image_folder(root)
        official = [None] * len(found) if found.official is None else found.official.tolist()
        classes = [found.classes[label] for label in found.labels]
        assert sorted(zip(official, classes, found.inputs[:, 0, 0, 0].tolist(), strict=True)) == expected, seed
        assert listed(found).keys() == skipped.keys(), seed
        assert all(reason in listed(found)[path] for path, reason in skipped.items()), seed
        count = sum(path.is_file() for path in root.rglob("*"))
        assert len(found) + len(found.skipped) == count
        files += count
    with capsys.disabled():
        print(f" {FOLDERS} folders of images, {files:,} files", end="")
