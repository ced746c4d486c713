"""The stream of crops: order, sharing out, resuming, skipping. Workers and processes are real ones."""

from __future__ import annotations

import json
import multiprocessing
from collections import Counter
from itertools import islice
from pathlib import Path

import pytest
import torch
from picture_files import break_file, save_numbered

from foundir_hf.data.hub_datasets import HubStream
from foundir_hf.data.shards import pack
from foundir_hf.data.sources import CleanFiles, open_source
from foundir_hf.data.stream import Crop, CropStream, PairStream


@pytest.fixture(scope="module")
def photos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("stream") / "photos"
    save_numbered(folder, 10)
    return folder


def seen(crops: list[Crop]) -> list[tuple[str, bytes]]:
    return [(crop.name, crop.hq.tobytes()) for crop in crops]


def take(stream: CropStream, count: int) -> list[tuple[str, bytes]]:
    return seen(list(islice(stream, count)))


def dataset(folder: Path, shards: int):
    datasets = pytest.importorskip("datasets")
    paths = sorted(folder.glob("*.png"))
    data = datasets.Dataset.from_dict({"image": [p.read_bytes() for p in paths], "name": [p.name for p in paths]})
    features = datasets.Features({"image": datasets.Image(), "name": datasets.Value("string")})
    return HubStream(data.cast(features).to_iterable_dataset(num_shards=shards), shuffle_buffer=3)


# --- Order and sharing out ---


def share(folder: Path, process: int, count: int, results) -> None:
    crops = CropStream(open_source(folder), 16, seed=5, process=process, processes=2, workers=2)
    results.put((process, [name for name, _ in take(crops, count)]))


def test_two_processes_with_two_workers_each_cover_every_epoch_exactly_once(photos):
    context = multiprocessing.get_context("fork")
    results = context.Queue()
    runs = [context.Process(target=share, args=(photos, process, 10, results)) for process in range(2)]
    for run in runs:
        run.start()
    shares = dict(results.get(timeout=120) for _ in runs)
    for run in runs:
        run.join()
    everything = sorted(f"{i:02d}.png" for i in range(10))
    for epoch in range(2):
        first, second = (shares[process][5 * epoch : 5 * epoch + 5] for process in range(2))
        assert sorted(first + second) == everything
    assert shares[0][:5] != shares[0][5:]


def test_an_epoch_that_processes_cannot_divide_evenly_is_covered_once_too(photos):
    source = open_source(photos)
    shares = [take(CropStream(source, 16, process=process, processes=3, workers=0), 10) for process in range(3)]
    in_order = [name for turn in zip(*shares, strict=True) for name, _ in turn]
    for epoch in range(3):
        assert sorted(in_order[10 * epoch : 10 * epoch + 10]) == sorted(f"{i:02d}.png" for i in range(10))


def test_the_stream_depends_on_the_seed_and_not_on_the_workers(photos):
    source = open_source(photos)
    alone = take(CropStream(source, 16, seed=1, workers=0), 25)
    assert take(CropStream(source, 16, seed=1, workers=2), 25) == alone
    other = take(CropStream(source, 16, seed=2, workers=0), 25)
    assert [name for name, _ in other] != [name for name, _ in alone]
    crops = {name: {pixels for other_name, pixels in alone if other_name == name} for name, _ in alone}
    assert max(len(pixels) for pixels in crops.values()) > 1  # another place in every epoch


def test_the_streams_workers_leave_the_training_random_numbers_alone(photos):
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    take(CropStream(open_source(photos), 16, workers=1), 2)
    assert torch.equal(torch.rand(2), expected)


@pytest.mark.parametrize("shards", [1, 4])
def test_a_streamed_data_set_is_shared_out_among_all_workers_of_all_processes(photos, shards):
    names = []
    for process in range(2):
        stream = CropStream(dataset(photos, shards), 16, seed=1, process=process, processes=2, workers=2)
        names += [name for name, _ in take(stream, 4)]  # 2 or 3 samples a worker: two turns are in every one's first epoch
    assert len(set(names)) == 8


# --- Resuming ---


def resumed(stream: CropStream, states: list[dict]) -> CropStream:
    stream.load_state_dict(json.loads(json.dumps(states)))
    return stream


@pytest.mark.parametrize("consumed", [0, 3, 7, 10, 13])
def test_a_resumed_stream_goes_on_with_exactly_the_next_crop(tmp_path, consumed):
    break_file(save_numbered(tmp_path, 8)[3])  # skipped ones must neither shift nor repeat anything
    source = open_source(tmp_path)
    uninterrupted = take(CropStream(source, 16, seed=1, workers=2), 30)
    first = CropStream(source, 16, seed=1, workers=2)
    assert take(first, consumed) == uninterrupted[:consumed]
    for workers in (2, 0):  # prefetched crops were not consumed; another number of workers changes nothing
        second = resumed(CropStream(source, 16, seed=1, workers=workers), [first.state_dict()])
        assert take(second, 30 - consumed) == uninterrupted[consumed:]


@pytest.mark.parametrize("consumed", [0, 3, 8, 21])
def test_a_resumed_streamed_data_set_goes_on_with_exactly_the_next_crop(tmp_path, consumed):
    break_file(save_numbered(tmp_path, 9)[4])

    def stream() -> CropStream:
        return CropStream(dataset(tmp_path, 1), 16, seed=1, workers=2)

    uninterrupted = take(stream(), 30)
    first = stream()
    assert take(first, consumed) == uninterrupted[:consumed]
    second = resumed(stream(), [first.state_dict()])
    assert take(second, 30 - consumed) == uninterrupted[consumed:]
    assert Counter(name for name, _ in uninterrupted[:8]).most_common(1)[0][1] == 1
    with pytest.raises(ValueError, match="as many processes and workers as it began with: 1 processes with 2 workers each, got 1 with 3"):
        CropStream(dataset(tmp_path, 1), 16, seed=1, workers=3).load_state_dict([first.state_dict()])


def test_with_another_number_of_processes_no_sample_is_seen_twice_in_an_epoch(photos):
    source = open_source(photos)
    two = [CropStream(source, 16, seed=1, process=process, processes=2, workers=0) for process in range(2)]
    before = [name for stream in two for name, _ in take(stream, 2)]
    states = [stream.state_dict() for stream in two]
    three = [resumed(CropStream(source, 16, seed=1, process=process, processes=3, workers=0), states) for process in range(3)]
    after = [name for stream in three for name, _ in take(stream, 1)]
    assert len({*before, *after}) == 7


def test_a_checkpoint_of_other_data_is_refused(photos, tmp_path):
    state = CropStream(open_source(photos), 16, workers=0).state_dict()
    save_numbered(tmp_path, 4)
    with pytest.raises(ValueError, match="not the same data"):
        CropStream(open_source(tmp_path), 16, workers=0).load_state_dict([state])


# --- Skipping ---


@pytest.mark.parametrize("kind", ["files", "streamed"])
def test_broken_files_are_skipped_counted_and_named_once(tmp_path, caplog, kind):
    paths = save_numbered(tmp_path, 6)
    break_file(paths[2])
    paths[4].write_text("no picture")
    source = open_source(tmp_path) if kind == "files" else dataset(tmp_path, 1)
    stream = CropStream(source, 16, workers=1)
    names = [name for name, _ in take(stream, 12)]
    assert Counter(names) == dict.fromkeys(["00.png", "01.png", "03.png", "05.png"], 3)
    assert stream.skipped.keys() == {"02.png", "04.png"}
    assert stream.skipped["04.png"] == "cannot be read: not an image of a known format"
    assert caplog.text.count("02.png") == caplog.text.count("04.png") == 1


def test_only_when_everything_is_broken_the_stream_ends_with_an_error(tmp_path):
    paths = [break_file(path) for path in save_numbered(tmp_path, 3)]
    with pytest.raises(ValueError, match=r"None of the 3 samples can be used; the last one: .*png: cannot be read"):
        next(CropStream(CleanFiles(paths), 16, workers=1))
    with pytest.raises(ValueError, match=r"^Share 1 of 1 of the streamed data set is of no use: .*cannot be read"):
        next(CropStream(dataset(tmp_path, 1), 16, workers=1))


def test_a_share_without_a_sample_is_an_error_and_no_endless_wait(tmp_path):
    save_numbered(tmp_path, 1)
    with pytest.raises(ValueError, match=r"Share 2 of 2 of the streamed data set is of no use: it holds no sample.* fewer workers"):
        take(CropStream(dataset(tmp_path, 1), 16, workers=2), 3)


# --- Pairs ---


def pairs(source, proportions: dict[str, float], **options) -> PairStream:
    return PairStream(source, proportions, batch_size=4, crop_size=16, context_size=20, workers=0, **options)


def test_batches_have_the_shapes_and_ranges_of_those_from_memory(photos):
    stream = pairs(open_source(photos), {"gaussian_noise": 1.0, "low_light": 1.0})
    batch = stream.batch(stream.generator(0))
    assert batch.hq.shape == batch.lq.shape == (4, 3, 16, 16)
    assert set(batch.tasks) <= {"gaussian_noise", "low_light"}
    assert all(-1 <= tensor.min() < tensor.max() <= 1 for tensor in (batch.hq, batch.lq))
    assert not torch.equal(batch.hq, batch.lq)


def test_a_resumed_stream_of_pairs_makes_the_batches_of_an_uninterrupted_one(photos):
    def stream() -> PairStream:
        return pairs(open_source(photos), {"gaussian_noise": 1.0, "haze": 1.0}, seed=4)

    whole, begun, second = stream(), stream(), stream()
    expected = [whole.batch(whole.generator(step)) for step in range(4)]
    for step in range(2):
        begun.batch(begun.generator(step))
    second.load_state_dict([begun.state_dict()])
    for step in (2, 3):
        batch = second.batch(second.generator(step))
        assert torch.equal(batch.lq, expected[step].lq)
        assert batch.tasks == expected[step].tasks


def test_pairs_keep_their_lq_and_their_task(tmp_path):
    save_numbered(tmp_path / "fog" / "HQ", 3)
    save_numbered(tmp_path / "fog" / "LQ", 3)
    stream = pairs(open_source(tmp_path / "fog"), {"gaussian_noise": 1.0})
    batch = stream.batch(stream.generator(0))
    assert batch.tasks == ["fog"] * 4
    assert torch.equal(batch.lq, batch.hq)  # both folders hold the same pictures: nothing was added


def test_surroundings_smaller_than_the_crop_are_refused(photos):
    with pytest.raises(ValueError, match="`context_size` must be at least `crop_size` 16, got 8"):
        PairStream(open_source(photos), {"clean": 1.0}, 4, 16, 8)


# --- Shares that change ---


@pytest.fixture
def tasks_of_pairs(tmp_path) -> Path:
    """Pairs of two tasks that their blue channel tells apart, and of each task which photograph it is."""
    for task, numbers in (("fog", 7), ("snow storm", 5)):
        save_numbered(tmp_path / task / "HQ", numbers)
        save_numbered(tmp_path / task / "LQ", numbers)
    return tmp_path


def drawn(stream: PairStream, steps: range) -> list[tuple[str, int]]:
    batches = [stream.batch(stream.generator(step)) for step in steps]
    return [(task, round(float(hq[2].mean() + 1) * 127.5)) for batch in batches for task, hq in zip(batch.tasks, batch.hq, strict=True)]


def test_the_shares_of_pairs_hold_exactly_and_nothing_is_lost_or_repeated_when_they_change(tasks_of_pairs):
    stream = pairs(open_source(tasks_of_pairs), {"fog": 3.0, "snow storm": 1.0}, seed=2)
    assert stream.proportions == {"fog": 0.75, "snow storm": 0.25}
    seen = drawn(stream, range(50))
    stream.set_proportions({"snow storm": 9.0, "fog": 1.0})
    seen += drawn(stream, range(50, 100))
    for part, share in ((seen[:200], 0.75), (seen[200:], 0.1)):
        fog = sum(task == "fog" for task, _ in part)
        # Chi square with one degree of freedom, 1 %.
        assert (fog - 200 * share) ** 2 / (200 * share) + (fog - 200 * share) ** 2 / (200 * (1 - share)) < 6.6
    for task, count in (("fog", 7), ("snow storm", 5)):
        numbers = [number for name, number in seen if name == task]
        epochs = [numbers[start : start + count] for start in range(0, len(numbers) - count + 1, count)]
        assert all(sorted(epoch) == list(range(count)) for epoch in epochs)


def test_a_resumed_stream_of_several_tasks_goes_on_with_every_one_of_them(tasks_of_pairs):
    def stream() -> PairStream:
        return pairs(open_source(tasks_of_pairs), {"fog": 1.0, "snow storm": 1.0})

    whole, begun, second = stream(), stream(), stream()
    shares = {"fog": 0.8, "snow storm": 0.2}
    expected = drawn(whole, range(3))
    whole.set_proportions(shares)
    expected += drawn(whole, range(3, 6))
    assert drawn(begun, range(3)) == expected[:12]
    second.load_state_dict([begun.state_dict()])
    second.set_proportions(shares)
    assert drawn(second, range(3, 6)) == expected[12:]
    with pytest.raises(ValueError, match=r"with pairs of \['mist'\], the data now hold \['fog', 'snow storm'\]"):
        second.load_state_dict([{"mist": {}}])


def test_two_processes_share_out_the_pairs_of_every_task_whatever_the_shares(tasks_of_pairs):
    streams = [pairs(open_source(tasks_of_pairs), {"fog": 1.0, "snow storm": 1.0}, process=process, processes=2) for process in range(2)]
    for stream in streams:
        stream.set_proportions({"fog": 1.0, "snow storm": 0.0})
    # One epoch of seven: four come from one process, three from the other.
    numbers = [drawn(stream, range(step, step + 1))[:count] for step, (stream, count) in enumerate(zip(streams, (4, 3), strict=True))]
    assert sorted(number for part in numbers for _, number in part) == list(range(7))


def test_the_shares_of_a_streamed_data_set_of_pairs_cannot_change(tasks_of_pairs):
    pytest.importorskip("datasets")
    for _ in pack(open_source(tasks_of_pairs), tasks_of_pairs / "shards"):
        pass
    stream = pairs(open_source(f"hf+stream://{tasks_of_pairs / 'shards'}"), {"clean": 1.0, "haze": 1.0})
    assert {task for task, _ in drawn(stream, range(2))} <= {"fog", "snow storm"}
    with pytest.raises(ValueError, match="shares of a streamed data set of pairs cannot be changed"):
        stream.set_proportions({"clean": 0.4, "haze": 0.6})
    stream.set_proportions({"clean": 0.5, "haze": 0.5})  # what they are: strategies that change nothing may say so
