"""Rows of metrics: every step once, whatever happened in between."""

import json
import struct

import pytest
from tensorboardX.proto import event_pb2

from chain_jax import errors, metric_writer


def _rows(folder):
  text = (folder / "metrics.jsonl").read_text()
  return [json.loads(line) for line in text.splitlines()]


def _write(folder, steps, *, start_step):
  writer = metric_writer.MetricWriter(str(folder), start_step=start_step)
  for step in steps:
    writer.write(step, {"total": float(step), "batch_checksums": [step]})
  writer.close()


def test_a_resumed_run_takes_back_the_rows_beyond_its_start(tmp_path):
  _write(tmp_path, [2, 4, 6], start_step=0)
  _write(tmp_path, [6, 8], start_step=4)
  assert [row["step"] for row in _rows(tmp_path)] == [2, 4, 6, 8]


def test_a_line_cut_by_a_kill_is_dropped(tmp_path):
  _write(tmp_path, [2], start_step=0)
  with open(tmp_path / "metrics.jsonl", "a") as file:
    file.write('{"step": 4, "tot')
  _write(tmp_path, [4], start_step=2)
  assert [row["step"] for row in _rows(tmp_path)] == [2, 4]


def test_rows_that_a_bad_disk_spoilt_are_dropped(tmp_path):
  _write(tmp_path, [2, 4], start_step=0)
  path = tmp_path / "metrics.jsonl"
  first, second = path.read_text().splitlines(keepends=True)
  path.write_text(first + "\x00\x00}\n[]\n" + second)
  _write(tmp_path, [6], start_step=4)
  assert [row["step"] for row in _rows(tmp_path)] == [2, 4, 6]


@pytest.mark.parametrize(
    "line",
    [
        b"\xff\xfe{}",
        b"[" * 10**5,
        b'{"step": "x"}',
        b'{"step": null}',
        b'{"step": ' + b"1" * 5000 + b"}",
        '{"step": 3, "total": 1}'.encode("utf-16"),
    ],
)
def test_bytes_of_any_kind_are_no_row(tmp_path, line):
  _write(tmp_path, [2], start_step=0)
  with open(tmp_path / "metrics.jsonl", "ab") as file:
    file.write(line + b"\n")
  _write(tmp_path, [4], start_step=2)
  assert [row["step"] for row in _rows(tmp_path)] == [2, 4]


def test_a_full_disk_is_one_line_that_names_the_file(tmp_path, monkeypatch):
  class FullFile:

    def write(self, _):
      raise OSError(28, "No space left on device")

  writer = metric_writer.MetricWriter(str(tmp_path), start_step=0)
  with monkeypatch.context() as patched:
    patched.setattr(writer, "_file", FullFile())
    with pytest.raises(errors.RunError, match="metrics.jsonl: could not"):
      writer.write(1, {"total": 1.0})
  writer.close()


def test_tensorboard_events_are_written_beside_the_rows(tmp_path):
  _write(tmp_path, [2], start_step=0)
  events = list((tmp_path / "tensorboard").glob("events*"))
  assert events and b"total" in events[0].read_bytes()


def test_events_that_cannot_grow_are_one_line_and_no_hang(tmp_path, small_disk):
  (tmp_path / "tensorboard").symlink_to(small_disk, target_is_directory=True)
  writer = metric_writer.MetricWriter(str(tmp_path), start_step=0)
  with pytest.raises(errors.RunError) as caught:
    for step in range(20_000):  # A megabyte of events and more.
      writer.write(step, {"total": 1.0, "contrastive": 2.0})
  line = str(caught.value)
  assert f"{tmp_path / 'tensorboard'}/events" in line and "\n" not in line
  assert "No space left on device" in line
  with pytest.raises(errors.RunError, match="No space left"):
    writer.close()


def test_events_say_at_which_step_a_resumed_run_goes_on(tmp_path):
  _write(tmp_path, [6], start_step=4)
  (file,) = (tmp_path / "tensorboard").glob("events*")
  # By TensorBoard's own protobuf, from records without their checksums.
  data, events = file.read_bytes(), []
  while data:
    (size,) = struct.unpack("<Q", data[:8])
    events.append(event_pb2.Event.FromString(data[12 : 12 + size]))
    data = data[16 + size :]
  version, start, row = events
  assert version.file_version == "brain.Event:2"
  assert (start.step, start.session_log.status) == (5, 1)  # START.
  assert [value.tag for value in row.summary.value] == ["total"]
  assert (row.step, row.summary.value[0].simple_value) == (6, 6.0)
