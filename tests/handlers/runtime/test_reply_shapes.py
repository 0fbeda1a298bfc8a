from typing import Any

import pytest

from handlers.runtime.exceptions import InternalError, UpstreamProtocolError
from handlers.runtime.reply_shapes import shaped
from tests.handlers.conftest import MakeRequest

UPLOAD = {"id": "upload_1", "status": "pending", "filename": "a", "bytes": 1, "purpose": "batch", "expires_at": 2}
FILE = {"id": "file-1", "filename": "a", "bytes": 1}


def test_what_the_contract_does_not_name_is_left_out(request_of: MakeRequest) -> None:
    """At every level; and so is what is null."""
    answer = {**UPLOAD, "object": "upload", "created_at": 1, "file": {**FILE, "object": "file", "status": "processed"}}
    assert shaped(request_of("startUpload"), answer) == {**UPLOAD, "file": FILE}
    assert shaped(request_of("startUpload"), {**UPLOAD, "file": None}) == UPLOAD


@pytest.mark.parametrize(
    "field, value",
    [("bytes", "1"), ("bytes", True), ("bytes", 1.5), ("filename", 1), ("file", [FILE]), ("purpose", {})],
)
def test_what_has_another_type_is_left_out(request_of: MakeRequest, field: str, value: Any) -> None:
    """A reply is what the contract promises, whatever the upstream says."""
    kept = {name: item for name, item in UPLOAD.items() if name != field}
    assert shaped(request_of("startUpload"), {**UPLOAD, field: value}) == kept


@pytest.mark.parametrize("field, value", [("id", None), ("id", 1), ("status", "paused"), ("status", None)])
def test_an_answer_without_what_matters_is_an_error(request_of: MakeRequest, field: str, value: Any) -> None:
    """Without its id or its status an upload is of no use to anybody."""
    with pytest.raises(UpstreamProtocolError):
        shaped(request_of("startUpload"), {**UPLOAD, field: value})


def test_a_list_is_kept_whole_or_not_at_all(request_of: MakeRequest) -> None:
    """An item that does not fit is not dropped in silence."""
    request = request_of("uploadFile")
    assert shaped(request, {"data": [{**FILE, "x": 1}, FILE], "failed": []}) == {"data": [FILE, FILE], "failed": []}
    with pytest.raises(UpstreamProtocolError):
        shaped(request, {"data": [FILE, {"bytes": 1}], "failed": []})


def test_an_operation_without_a_json_reply_has_no_shape(request_of: MakeRequest) -> None:
    """That is a mistake in the relay."""
    with pytest.raises(InternalError):
        shaped(request_of("downloadFile"), {})
