"""Every status word and every error code of the fact sheets. Each has to stand in a row of its API's table.

Copied from the sheets, by section: a word that is missing here was missing there.
"""

from __future__ import annotations

STATUSES: dict[str, tuple[str, ...]] = {
    # midjourney_proxy.md, section 6
    "midjourney": ("NOT_START", "SUBMITTED", "IN_PROGRESS", "MODAL", "SUCCESS", "FAILURE", "CANCEL"),
    # kling.md: the legacy API's and the new API's words
    "kling": ("submitted", "processing", "succeed", "failed", "succeeded"),
    # jimeng.md, section A4
    "jimeng": ("in_queue", "generating", "done", "not_found", "expired"),
    # flux_bfl.md, section 4.2
    "bfl": ("Pending", "Reasoning", "Generating", "Ready", "Request Moderated", "Content Moderated", "Error",
            "Task not found", "Failed"),
    # flux_fal.md, section 4
    "fal": ("IN_QUEUE", "IN_PROGRESS", "COMPLETED", "FAILED", "CANCELED"),
}  # fmt: skip

CODES: dict[str, tuple[int | str, ...]] = {
    # midjourney_proxy.md, section 4: return codes; section 6: families of failReason
    "midjourney": (1, 22, 21, 23, 24, 3, 4, 9, 401, 403, 429, 500, "并发数已达上限", "队列数已达上限", "队列已满",
                   "用户今日绘图次数", "总绘图次数", "账号", "任务超时", "[Invalid parameter]",
                   "[Banned prompt detected]", "[Internal Server Error]", "Failed ", "Image denied", "取消任务"),
    # kling.md, section 6
    "kling": (0, 1000, 1001, 1002, 1003, 1004, 1100, 1101, 1102, 1103, 1200, 1201, 1202, 1203, 1300, 1301, 1302, 1303,
              1304, 5000, 5001, 5002, "policy", "风控", "敏感", "risk", "content"),
    # jimeng.md, section A5, with the gateway's CodeN
    "jimeng": (10000, 50411, 50412, 50413, 50511, 50512, 50516, 50517, 50518, 50519, 50520, 50521, 50522, 50429, 50430,
               50500, 50501, 50215, 50400, 100002, 100007, 100009, 100010, 100013, "MissingParameter",
               "ServiceNotFound", "InvalidAccessKey", "SignatureDoesNotMatch", "AccessDenied"),
    # flux_bfl.md, section 5: HTTP statuses
    "bfl": (400, 401, 403, 402, 404, 422, 429, 500, 503, "Insufficient credits"),
    # flux_fal.md, sections 8.1 and 8.2
    "fal": ("request_timeout", "startup_timeout", "runner_scheduling_failure", "runner_connection_timeout",
            "runner_disconnected", "runner_connection_refused", "runner_connection_error", "runner_incomplete_response",
            "runner_server_error", "internal_error", "client_disconnected", "client_cancelled", "bad_request",
            "internal_server_error", "generation_timeout", "downstream_service_error", "downstream_service_unavailable",
            "content_policy_violation", "no_media_generated", "image_too_small", "image_too_large", "image_load_error",
            "file_download_error", "face_detection_error", "file_too_large", "greater_than", "greater_than_equal",
            "less_than", "less_than_equal", "multiple_of", "sequence_too_short", "sequence_too_long", "one_of",
            "feature_not_supported", "invalid_archive", "archive_file_count_below_minimum",
            "archive_file_count_exceeds_maximum", "invalid_api_key", "input_value_error", "value_error.missing",
            "missing", "locked", "Exhausted balance", "TOP_UP", "Admin lock",
            401, 402, 403, 404, 422, 429, 499, 500, 502, 503, 504),
}  # fmt: skip
