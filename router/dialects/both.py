"""Both APIs at one address: UGC's on `/`, the native one everywhere else. Pure."""

from __future__ import annotations

from router.choosing.request import Purpose
from router.counting.tally import Answered
from router.dialects import ugc
from router.dialects.contract import Refused
from router.dialects.native import HeadFacts, NativeDialect
from router.wire.answer_head import AnswerHead
from router.wire.problems import OwnAnswer, Problem
from router.wire.request_head import RequestHead


class BothDialects(NativeDialect):
    """The native dialect, but for requests to `/` and for answers that carry a `RetCode`."""

    def purpose_of(self, head: RequestHead) -> Purpose:
        return ugc.purpose_of(head) if ugc.is_ugc(head) else super().purpose_of(head)

    def facts_of(self, head: RequestHead, client: bytes) -> HeadFacts:
        return ugc.UgcFacts(head, client) if ugc.is_ugc(head) else super().facts_of(head, client)

    def account_of(self, head: RequestHead) -> str:
        return ugc.account_of(head) if ugc.is_ugc(head) else super().account_of(head)

    def outcome_of(self, answer: AnswerHead) -> Answered | None:
        code = answer.get(ugc.RET_CODE)
        return super().outcome_of(answer) if code is None else ugc.outcome_of(code, answer)

    def may_refuse(self, answer: AnswerHead) -> bool:
        return ugc.refuses(answer) or super().may_refuse(answer)

    def refusal_in(self, problem: dict[str, object]) -> Refused | None:
        return ugc.refusal_of(problem) if "RetCode" in problem else super().refusal_in(problem)

    def error(self, problem: Problem, head: RequestHead | None) -> OwnAnswer:
        if head is not None and ugc.is_ugc(head):
            return ugc.error(problem, head)
        return super().error(problem, head)
