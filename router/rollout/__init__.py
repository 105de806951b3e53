"""Automated release of one set: steps with holds, judged by statistics, taken back by itself when it is sick.

Pure:

- `section`, `plan`: the operators' YAML → what is to be done: steps, limits, windows
- `cohort`, `overlay`: which requests are compared; the table's weights with the rollout's on top
- `tally`, `lately`, `flow`: what was seen of a cohort, in bounded memory; in the latest window; whether it still comes
- `rates`, `tail`, `analysis`: a difference of rates, a ratio of 95th percentiles, both always valid; verdicts in words
- `states`, `record`, `turn`, `progress`: legal moves; something happens, out come another progress and instructions
- `glide`: how fast weights may move when a set must take over
- `preview`: what a start would do, how long it takes and how many requests it needs
- `status`: everything that operators want to see, as plain data
- `world`, `simulate`: all of these driven through made-up histories

Shell:

- `observer`: what the data plane calls for every answer
- `statefile`, `tallies`: progress on disk and the lease of the one leader; what all workers saw, added up
- `outcomes`: how asynchronous tasks end, by the sets' own counts
- `orders`, `leader`, `runner`, `outside`: operators; the leader's clock; every worker's part; gates and webhooks
"""
