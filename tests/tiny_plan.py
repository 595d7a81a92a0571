"""A preparation of one task, for the tests of what every task does."""

from chain_jax.preparation import plan as plan_lib
from chain_jax.preparation.split_rule import SplitRule


def tiny_plan(output, *, shard):
  """Plans one train shard of that name, and claims the folder."""
  plan = plan_lib.Plan(
      output=output,
      name="yt8m_frames",
      form=plan_lib.FrameForm(1152, "uint8"),
      scale=1.0,
      offset=0.0,
      num_classes=9,
      rule=SplitRule(),
      parts=["train"],
      inputs=[[[shard, 1]]],
      settings={},
  )
  plan_lib.claim_output(plan)
  return plan
