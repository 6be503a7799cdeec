"""Keras callbacks for a wrapped model: the whole lottery-ticket search, gradual pruning, and what TensorBoard is told.

All of them go by `optimizer.iterations`, the number of updates: so they are right with `steps_per_execution`, gradient
accumulation and steps that loss scaling skips, and act between batches, so that nothing of them is in the compiled step.
"""

from tf_lottery.search.callbacks.level_summaries import LevelSummaries
from tf_lottery.search.callbacks.lottery_ticket import LotteryTicket
from tf_lottery.search.callbacks.prune_by_schedule import PruneBySchedule
from tf_lottery.search.callbacks.pruning_summaries import PruningSummaries

__all__ = ["LevelSummaries", "LotteryTicket", "PruneBySchedule", "PruningSummaries"]
