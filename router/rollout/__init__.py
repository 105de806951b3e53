"""Automated release of one set: steps with holds, judged by statistics, taken back by itself when it is sick.

section     the operators' YAML → a plan
plan        what is to be done: steps, limits, windows
cohort      which requests are compared: the canary's, and an equal slice of the old sets'
tally       what was seen of a cohort: counts and a sketch of latencies, in bounded memory
rates, tail the two statistics: a difference of rates, a ratio of 95th percentiles, both always valid
analysis    three verdicts in words
progress    the states and legal moves: events in, another progress and instructions out
glide       how fast weights may move when a set must take over
overlay     the table's weights with the rollout's on top
statefile   progress on disk, the lease of the one leader
observer    what the data plane calls for every answer
runner      the shell: timers, files, gates, webhooks
simulate    all of the above driven through made-up histories
"""
