"""Automated release of one set: steps with holds, judged by statistics, taken back by itself when it is sick.

The plan is read by `config.rollout_section` into `routing.plan`; what the two cohorts did is counted in `counting`.

Pure:

- `overlay`: the table's weights with the rollout's on top
- `lately`, `look`, `flow`: the evidence cut into slices and windows; whether traffic still comes
- `rates`, `tail`: always-valid intervals for a difference of rates and a ratio of 95th percentiles
- `eprocess`, `clumps`: evidence that a rate is worse than allowed; how much less clumped latencies tell
- `patience`, `analysis`: which requests are errors; verdicts in words
- `states`, `record`, `turn`, `progress`: legal moves; something happens, out come another progress and instructions
- `lead`: one turn of the worker that leads, and of the simulator; `applier`: what file and progress say, put in force
- `glide`: how fast weights may move when a set must take over
- `preview`: what a start would do, how long it takes and how many requests it needs
- `status`: everything that operators want to see, as plain data
- `certainty`: how much longer until a check that cannot tell yet would know
- `world`, `kinds`, `simulate`: all of these driven through made-up histories, with canaries of many kinds

Shell:

- `statefile`, `tallies`: progress on disk and the lease of the one leader; what all workers saw, added up
- `orders`, `leader`, `runner`, `outside`: operators; the leader's clock; every worker's part; gates and webhooks
"""
