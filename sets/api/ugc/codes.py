"""The codes of UGC's errors, and its messages word for word: clients compare both."""

from __future__ import annotations

from enum import IntEnum
from typing import Final


class RetCode(IntEnum):
    """`RetCode` of an answer. Those below 1000 are of the gateway before the service."""

    NOT_FINISHED = -1
    SUCCESS = 0
    UNAVAILABLE = 150
    TOO_MANY_REQUESTS = 153
    NO_ACTION = 160
    UNKNOWN_ACTION = 161
    NO_SIGNATURE = 170
    WRONG_SIGNATURE = 171
    UNKNOWN_PUBLIC_KEY = 172
    NO_SUCH_TOKEN = 174
    TOKEN_NOT_VALID = 43004
    TOKEN_EXPIRED = 43005
    PARAMETER_MISSING = 43006
    SUBMIT_TASK_FAIL = 43008
    TASK_NOT_FOUND = 43016
    INNER_ERROR = 43018
    CREATE_BUCKET_CONFLICT = 43022
    BUCKET_NOT_EXIST = 43023
    IMAGE_NAME_NOT_VALID = 43024
    BUCKET_NAME_NOT_VALID = 43025
    ACTION_NAME_NOT_VALID = 43026
    TIME_NOT_VALID = 43028
    PARAMETER_WRONG = 43033
    STOP_TASK_FAIL = 43039
    DELETE_IMAGE_NOT_EXIST = 43045
    DELETE_IMAGE_EMPTY = 43046
    DELETE_TAG_NAME_EMPTY = 43047
    CONTAINER_FAILED = 43048


MESSAGES: Final[dict[RetCode, str]] = {
    RetCode.NOT_FINISHED: "Not Finish",
    RetCode.SUCCESS: "",
    RetCode.UNAVAILABLE: "Service Unavailable",
    RetCode.TOO_MANY_REQUESTS: "Too Many Requests",
    RetCode.NO_ACTION: "Missing Action",
    RetCode.UNKNOWN_ACTION: "Action Not Found",
    RetCode.NO_SIGNATURE: "Missing Signature",
    RetCode.WRONG_SIGNATURE: "Signature VerifyAC Error",
    RetCode.UNKNOWN_PUBLIC_KEY: "PublicKey Not Found",
    RetCode.NO_SUCH_TOKEN: "Token Not Found",
    # The original's own spelling.
    RetCode.TOKEN_NOT_VALID: "TokenNotVaild",
    RetCode.TOKEN_EXPIRED: "TokenExpired",
    RetCode.PARAMETER_MISSING: "ParaMiss",
    RetCode.SUBMIT_TASK_FAIL: "SubmitTaskFail",
    RetCode.TASK_NOT_FOUND: "TaskNotFound",
    RetCode.INNER_ERROR: "InnerFrameworkError",
    RetCode.CREATE_BUCKET_CONFLICT: "CreateBucketConflict",
    RetCode.BUCKET_NOT_EXIST: "BucketNotExistError",
    RetCode.IMAGE_NAME_NOT_VALID: "ImageNameNotValid",
    RetCode.BUCKET_NAME_NOT_VALID: "BucketNameNotValid",
    RetCode.ACTION_NAME_NOT_VALID: "ActionNameNotValid",
    RetCode.TIME_NOT_VALID: "TimeParamNotValid",
    RetCode.PARAMETER_WRONG: "ParaError",
    RetCode.STOP_TASK_FAIL: "StopTaskFail",
    RetCode.DELETE_IMAGE_NOT_EXIST: "DeleteImageNotExsitError",
    RetCode.DELETE_IMAGE_EMPTY: "DeleteImageEmptyError",
    RetCode.DELETE_TAG_NAME_EMPTY: "DeleteTagNameEmptyError",
    RetCode.CONTAINER_FAILED: "SubmitTaskContainerError",
}


class UgcError(Exception):
    """A call fails. `detail` says in words what was wrong; it goes beside `Message`, which clients compare."""

    def __init__(self, code: RetCode, detail: str, **members: object) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.members = members

    @property
    def message(self) -> str:
        return MESSAGES[self.code]
