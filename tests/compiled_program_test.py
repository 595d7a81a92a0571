"""What a program moves, off an HLO text small enough to count by hand."""

import pytest

from chain_jax import compiled_program
from chain_jax.compiled_program import Collective, Movement

# A loop of 3 turns: each takes a row of a stack of 3 rows of 4 floats in HBM
# and sums it over pairs of devices, in the chip's memory, S(1).
_TEXT = """\
HloModule jit_step, is_scheduled=true

%sum (a: f32[], b: f32[]) -> f32[] {
  %a = f32[] parameter(0)
  %b = f32[] parameter(1)
  ROOT %added = f32[] add(%a, %b)
}

%fused (p: f32[3,4], i: s32[]) -> f32[4] {
  %p = f32[3,4]{1,0:T(8,128)} parameter(0)
  %i = s32[] parameter(1)
  ROOT %row = f32[4]{0:T(128)S(1)} dynamic-slice(%p, %i), dynamic_slice_sizes={1,4}
}

%body (state: (s32[], f32[3,4])) -> (s32[], f32[3,4]) {
  %state = (s32[]{:T(128)S(1)}, f32[3,4]{1,0:T(8,128)}) parameter(0)
  %turn = s32[]{:T(128)S(1)} get-tuple-element(%state), index=0
  %stack = f32[3,4]{1,0:T(8,128)} get-tuple-element(%state), index=1
  %row.1 = f32[4]{0:T(128)S(1)} fusion(%stack, %turn), kind=kLoop, calls=%fused
  %reduced = f32[4]{0:T(128)S(1)} all-reduce(%row.1), channel_id=1, replica_groups={{0,1},{2,3}}, to_apply=%sum
  ROOT %next = (s32[]{:T(128)S(1)}, f32[3,4]{1,0:T(8,128)}) tuple(%turn, %stack)
}

%condition (state.1: (s32[], f32[3,4])) -> pred[] {
  %state.1 = (s32[]{:T(128)S(1)}, f32[3,4]{1,0:T(8,128)}) parameter(0)
  %turn.1 = s32[]{:T(128)S(1)} get-tuple-element(%state.1), index=0
  %bound = s32[]{:T(128)} constant(3)
  ROOT %less = pred[]{:T(512)} compare(%turn.1, %bound), direction=LT
}

ENTRY %main (x: f32[3,4], y: bf16[8]) -> bf16[32] {
  %x = f32[3,4]{1,0:T(8,128)} parameter(0)
  %y = bf16[8]{0:T(128)} parameter(1)
  %zero = s32[]{:T(128)S(1)} constant(0)
  %start = (s32[]{:T(128)S(1)}, f32[3,4]{1,0:T(8,128)}) tuple(%zero, %x)
  %loop = (s32[]{:T(128)S(1)}, f32[3,4]{1,0:T(8,128)}) while(%start), condition=%condition, body=%body
  %copied = (bf16[8]{0:T(128)S(1)}, bf16[8]{0:T(128)}, u32[]{:S(2)}) copy-start(%y)
  %there = bf16[8]{0:T(128)S(1)} copy-done(%copied)
  %gathering = (bf16[8]{0:T(128)S(1)}, bf16[32]{0:T(128)S(1)}) all-gather-start(%there), channel_id=2, replica_groups=[1,4]<=[4], dimensions={0}
  %gathered = bf16[32]{0:T(128)S(1)} all-gather-done(%gathering)
  ROOT %doubled = bf16[32]{0:T(128)} add(%gathered, %gathered)
}
"""


def _movement(text=_TEXT):
  return compiled_program.read_movement(text, num_devices=4)


def test_collectives_are_counted_at_every_turn_of_their_loop():
  # 4 floats in groups of 2, three times; 32 bfloat16 among 4.
  assert sorted(_movement().collectives) == [
      Collective("all-gather", 64, 4, 1),
      Collective("all-reduce", 16, 2, 3),
  ]


def test_traffic_is_what_is_read_and_written_in_hbm():
  # Three rows of 16 bytes are read; y's 16 bytes are read; 64 are written.
  assert _movement().hbm_bytes == 3 * 16 + 16 + 64


def test_a_loop_of_unknown_length_counts_once():
  unknown = _TEXT.replace("constant(3)", "get-tuple-element(%state.1), index=0")
  counts = compiled_program.count_collectives(_movement(unknown))
  assert counts["all-reduce"] == (1, 16)


@pytest.mark.parametrize(
    ("groups", "size"),
    [
        ("{{0,1,2,3}}", 4),
        ("[2,8]<=[16]", 8),
        ("mesh['data'=8,'model'=2] {'data'}", 8),
        ("mesh['data'=8,'model'=2] {'data','model'}", 16),
        ("{}", 4),
    ],
)
def test_groups_are_read_in_every_spelling(groups, size):
  text = _TEXT.replace("{{0,1},{2,3}}", groups)
  sizes = {one.kind: one.group_size for one in _movement(text).collectives}
  assert sizes["all-reduce"] == size


def test_two_collectives_on_one_channel_are_two():
  # As those of a ring, which pass several arrays on at once.
  twice = _TEXT.replace(
      "  ROOT %next",
      "  %again = f32[4]{0:T(128)S(1)} all-reduce(%row.1), channel_id=1\n"
      "  ROOT %next",
  )
  counts = compiled_program.count_collectives(_movement(twice))
  assert counts["all-reduce"] == (2 * 3, 2 * 48)


def test_copies_of_a_collective_in_two_fusions_are_one():
  # As the compiler writes one that overlaps with other work.
  line = "%reduced = f32[4]{0:T(128)S(1)} all-reduce(%row.1), channel_id=1"
  fusions = "".join(
      f"%fused.{copy} (q: f32[4]) -> f32[4] {{\n"
      "  %q = f32[4]{0:T(128)S(1)} parameter(0)\n"
      f"  ROOT %sum.{copy} = f32[4]{{0:T(128)S(1)}} all-reduce(%q),"
      " channel_id=1, replica_groups={{0,1},{2,3}}\n}\n\n"
      for copy in (1, 2)
  )
  assert line in _TEXT
  first, _, rest = _TEXT.partition("%body")
  carried = (first + fusions + "%body" + rest).replace(
      line,
      "%begun = f32[4]{0:T(128)S(1)} fusion(%row.1), calls=%fused.1\n"
      "  %reduced = f32[4]{0:T(128)S(1)} fusion(%begun), calls=%fused.2",
  )
  counts = compiled_program.count_collectives(_movement(carried))
  assert counts["all-reduce"] == (3, 48)


def test_a_reduce_scatter_has_the_payload_before_it():
  scattered = _TEXT.replace("all-reduce(%row.1)", "reduce-scatter(%row.1)")
  counts = compiled_program.count_collectives(_movement(scattered))
  assert counts["reduce-scatter"] == (3, 3 * 2 * 16)


def test_network_time_by_hand():
  movement = Movement(
      0.0,
      (
          # Around a ring of 4: 3 quarters to sum and 3 to tell; 3 to gather.
          Collective("all-reduce", 400, 4, times=2),
          Collective("all-gather", 400, 4, times=1),
          # Over one of 6 links.
          Collective("collective-permute", 50, 4, times=1),
      ),
  )
  seconds = compiled_program.network_seconds(
      movement, bytes_per_second=100.0, num_links=6
  )
  assert seconds == (2 * 600 + 300 + 6 * 50) / 100


def test_a_device_alone_sends_nothing():
  movement = Movement(0.0, (Collective("all-reduce", 400, 1, times=2),))
  assert (
      compiled_program.network_seconds(
          movement, bytes_per_second=1.0, num_links=1
      )
      == 0
  )
