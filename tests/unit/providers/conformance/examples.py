"""The example answers of the fact sheets, letter for letter, and what each means.

They are replayed as they stand there: whatever fields they have besides those that count, and in their own order.
"""

# ruff: noqa: E501 - letter for letter

from __future__ import annotations

from common.providers.base import Failed, Running, Succeeded
from tests.unit.providers.conformance.vocabulary import (
    BALANCE,
    BUSY,
    CREDENTIALS,
    DOWN,
    FAILED_AGAIN,
    FAILED_MODERATED,
    GONE,
    INVALID,
    MODERATED,
    RUNNING,
    Expected,
    Target,
    accepted,
    trouble,
)

IMAGINE, ACTION = ("midjourney", "midjourney/imagine"), ("midjourney", "midjourney/action")
FILM = ("kling", "kling/text-to-video")
PICTURE, MOVING = ("jimeng", "jimeng/text-to-image"), ("jimeng", "jimeng/text-to-video")
NEW_FILM = ("kling/new", "kling/text-to-video")  # as the new API is asked
PRO, DEV = ("bfl", "flux/pro-1.1"), ("fal", "flux/dev")

SUBMITS: list[tuple[Target, int, str, Expected]] = [
    # midjourney_proxy.md, section 4
    (IMAGINE, 200,
     r"""{"code":1,"description":"提交成功","result":"1760000000000123","properties":{"discordInstanceId":"1118"}}""",
     accepted("1760000000000123")),
    (IMAGINE, 200,
     r"""{"code":22,"description":"排队中，前面还有2个任务","result":"1760000000000124","properties":{"numberOfQueues":2,"discordInstanceId":"1118"}}""",
     accepted("1760000000000124")),
    (IMAGINE, 200,
     r"""{"code":23,"description":"队列已满，请稍后尝试","result":null,"properties":{"discordInstanceId":"1118"}}""",
     trouble(BUSY)),
    (IMAGINE, 200,
     r"""{"code":24,"description":"可能包含敏感词","result":null,"properties":{"promptEn":"nude body","bannedWord":"nude"}}""",
     MODERATED),
    (IMAGINE, 200,
     r"""{"code":3,"description":"无可用的账号实例","result":null,"properties":{}}""",
     trouble(DOWN)),
    (IMAGINE, 200,
     r"""{"code":4,"description":"prompt不能为空","result":null,"properties":{}}""",
     INVALID),
    (IMAGINE, 200,
     r"""{"code":9,"description":"提交失败，系统异常","result":null,"properties":{}}""",
     trouble(DOWN)),
    # kling.md, sections 4.5, 5.1 and 6
    (FILM, 200,
     r"""{"code":0,"message":"SUCCEED","request_id":"r-1","data":{"task_id":"87000001","task_status":"submitted",
 "task_info":{"external_task_id":"job-42-a1"},"created_at":1781080778802,"updated_at":1781080778802}}""",
     accepted("87000001")),
    (FILM, 200,
     r"""{"code":0,"message":"SUCCEED","request_id":"r-9","data":{"id":"98000001","status":"submitted","create_time":1781080778802,
 "update_time":1781080778802,"external_id":"job-42-a1"}}""",
     accepted("98000001")),
    (FILM, 429,
     r"""{"code":1303,"message":"parallel task over resource pack limit","request_id":"r-12"}""",
     trouble(BUSY, retry_after_s=1.0)),
    (FILM, 429,
     r"""{"code":1102,"message":"Account balance not enough","request_id":"r-13"}""",
     trouble(BALANCE)),
    (FILM, 400,
     r"""{"code":1301,"message":"the request triggers content safety policy","request_id":"r-14"}""",
     MODERATED),
    # jimeng.md, sections A3 to A5
    (PICTURE, 200,
     r"""{"code":10000,"data":{"task_id":"7392616336519610409"},"message":"Success","request_id":"20261101…","status":10000,"time_elapsed":"104.852309ms"}""",
     accepted("7392616336519610409")),
    (PICTURE, 400,
     r"""{"code":50411,"data":null,"message":"Pre Img Risk Not Pass","request_id":"r","status":50411,"time_elapsed":"18ms"}""",
     MODERATED),
    (PICTURE, 401,
     r"""{"ResponseMetadata":{"RequestId":"r","Action":"CVSync2AsyncSubmitTask","Version":"2022-08-31","Service":"cv","Region":"cn-north-1",
 "Error":{"CodeN":100010,"Code":"SignatureDoesNotMatch","Message":"…"}}}""",
     trouble(CREDENTIALS)),
    # flux_bfl.md, section 4.1
    (PRO, 200,
     r"""{"id":"0b3f6c1e-7a55-4d1c-9a53-0a1d2e3f4a5b","polling_url":"https://api.eu1.bfl.ai/v1/get_result?id=0b3f6c1e-7a55-4d1c-9a53-0a1d2e3f4a5b","cost":3.0,"input_mp":0.0,"output_mp":1.05}""",
     accepted("0b3f6c1e-7a55-4d1c-9a53-0a1d2e3f4a5b", cost="3")),
    (PRO, 200,
     r"""{"id":"0b3f6c1e-7a55-4d1c-9a53-0a1d2e3f4a5b","status":"Pending","webhook_url":"https://api.example.com/hooks/bfl/TOKEN","cost":3.0,"input_mp":0.0,"output_mp":1.05}""",
     accepted("0b3f6c1e-7a55-4d1c-9a53-0a1d2e3f4a5b", cost="3", memo={})),
    # flux_fal.md, section 3
    (DEV, 200,
     r"""{"status":"IN_QUEUE","request_id":"80e732af-660e-45cd-bd63-580e4f2a94cc","queue_position":0,
 "response_url":"https://queue.fal.run/fal-ai/flux/requests/80e732af-660e-45cd-bd63-580e4f2a94cc",
 "status_url":"https://queue.fal.run/fal-ai/flux/requests/80e732af-660e-45cd-bd63-580e4f2a94cc/status",
 "cancel_url":"https://queue.fal.run/fal-ai/flux/requests/80e732af-660e-45cd-bd63-580e4f2a94cc/cancel"}""",
     accepted("80e732af-660e-45cd-bd63-580e4f2a94cc")),
]  # fmt: skip

# Code 21 asks for a window: two answers (midjourney_proxy.md, section 4).
WINDOW = r"""{"code":21,"description":"Waiting for window confirm","result":"1760000000000200","properties":{"finalPrompt":"a cat --v 7","remix":true}}"""

POLLS: list[tuple[Target, str, list[str], Expected]] = [
    # midjourney_proxy.md, section 6; the adapter asks for lists of tasks
    (IMAGINE, "1760000000000123", [
        r"""[{"id":"1760000000000123","action":"IMAGINE","status":"IN_PROGRESS","prompt":"a cat","promptEn":"a cat",
 "description":"/imagine a cat","state":"job-42","submitTime":1760000000123,"startTime":1760000001000,"finishTime":null,
 "progress":"46%","imageUrl":"https://cdn.discordapp.com/attachments/1/2/partial.webp","failReason":null,
 "properties":{"finalPrompt":"a cat --v 7","discordInstanceId":"1118"}}]""",
     ], (Running, {"progress": 46})),
    (IMAGINE, "1760000000000123", [
        r"""[{"id":"1760000000000123","action":"IMAGINE","status":"SUCCESS","prompt":"a cat","promptEn":"a cat","state":"job-42",
 "submitTime":1760000000123,"startTime":1760000001000,"finishTime":1760000061000,"progress":"100%",
 "imageUrl":"https://cdn.discordapp.com/attachments/1/2/final.png?ex=…&is=…&hm=…","failReason":null,
 "buttons":[{"customId":"MJ::JOB::upsample::1::8f…","emoji":"","label":"U1","style":2,"type":2},
            {"customId":"MJ::JOB::variation::1::8f…","emoji":"","label":"V1","style":2,"type":2},
            {"customId":"MJ::JOB::reroll::0::8f…::SOLO","emoji":"🔄","label":"","style":2,"type":2}],
 "properties":{"finalPrompt":"a cat --v 7"}}]""",
     ], (Succeeded, {})),
    (IMAGINE, "1760000000000124", [
        r"""[{"id":"1760000000000124","action":"IMAGINE","status":"FAILURE","progress":"","imageUrl":null,
 "failReason":"[Banned prompt detected] …","state":"job-43","submitTime":1760000000200,"startTime":1760000001000,"finishTime":1760000002000}]""",
     ], FAILED_MODERATED),
    # kling.md, sections 4.5 and 5.2
    (FILM, "87000001", [
        r"""{"code":0,"message":"SUCCEED","request_id":"r-2","data":{"task_id":"87000001","task_status":"processing","task_status_msg":"",
 "task_info":{"external_task_id":"job-42-a1"},"created_at":1781080778802,"updated_at":1781080790000}}""",
     ], RUNNING),
    (FILM, "87000001", [
        r"""{"code":0,"message":"SUCCEED","request_id":"r-3","data":{"task_id":"87000001","task_status":"succeed","task_status_msg":"",
 "task_info":{"external_task_id":"job-42-a1"},"final_unit_deduction":"3.5",
 "final_balance_deduction":{"quota":"0","list_price":"0"},"watermark_info":{"enabled":false},
 "task_result":{"videos":[{"id":"v-1","url":"https://cdn.example/v.mp4","watermark_url":"","duration":"5.1"}]},
 "created_at":1781080778802,"updated_at":1781080900000}}""",
     ], (Succeeded, {"cost": "3.5"})),
    (FILM, "87000002", [
        r"""{"code":0,"message":"SUCCEED","request_id":"r-4","data":{"task_id":"87000002","task_status":"failed",
 "task_status_msg":"content violates the platform policy","task_info":{},"created_at":1,"updated_at":2}}""",
     ], FAILED_MODERATED),
    (NEW_FILM, "98000001", [
        r"""{"code":0,"message":"SUCCEED","request_id":"r-10","data":[{"id":"98000001","status":"succeeded","message":"","create_time":1781080778802,
 "update_time":1781080900000,"external_id":"job-42-a1",
 "outputs":[{"type":"video","id":"v-9","url":"https://cdn.example/v.mp4","watermark_url":"","duration":"5.1"}],
 "billing":[{"charge_type":"unit","package_type":"video","amount":"3","list_price":"0"}]}]}""",
     ], (Succeeded, {"cost": "3"})),
    (NEW_FILM, "98000002", [
        r"""{"code":0,"message":"SUCCEED","request_id":"r-11","data":[{"id":"98000002","status":"failed","message":"risk control rejected the prompt",
 "create_time":1,"update_time":2,"external_id":"job-43-a1","outputs":[],"billing":[]}]}""",
     ], FAILED_MODERATED),
    # jimeng.md, section A4
    (PICTURE, "7392616336519610409", [
        r"""{"code":10000,"data":{"binary_data_base64":null,"image_urls":null,"status":"generating","video_url":"","resp_data":""},"message":"Success","request_id":"r","status":10000,"time_elapsed":"20ms"}""",
     ], RUNNING),
    (PICTURE, "7392616336519610409", [
        r"""{"code":10000,"data":{"binary_data_base64":null,"image_urls":["https://p9-aiop-sign.byteimg.com/….png?…"],"status":"done"},"message":"Success","request_id":"r","status":10000,"time_elapsed":"25ms"}""",
     ], (Succeeded, {})),
    (MOVING, "7392616336519610409", [
        r"""{"code":10000,"data":{"status":"done","video_url":"https://v3-artist.vlabvod.com/….mp4?…","aigc_meta_tagged":false},"message":"Success","request_id":"r","status":10000,"time_elapsed":"25ms"}""",
     ], (Succeeded, {})),
    (PICTURE, "7392616336519610409", [
        r"""{"code":50411,"data":null,"message":"Pre Img Risk Not Pass","request_id":"r","status":50411,"time_elapsed":"18ms"}""",
     ], FAILED_MODERATED),
    # flux_bfl.md, section 4.2
    (PRO, "0b3f…", [
        r"""{"id":"0b3f…","status":"Pending","result":null,"progress":0.4,"details":null,"preview":null}""",
     ], (Running, {"progress": 40})),
    (PRO, "0b3f…", [
        r"""{"id":"0b3f…","status":"Ready","result":{"sample":"https://delivery-eu1.bfl.ai/results/…/sample.png?se=…&sig=…","prompt":"a red fox in snow, 35mm","seed":42,"start_time":1761960000.1,"end_time":1761960005.3,"duration":5.2},"progress":null,"details":null,"preview":null}""",
     ], (Succeeded, {})),
    (PRO, "0b3f…", [
        r"""{"id":"0b3f…","status":"Content Moderated","result":null,"progress":null,"details":{"Moderation Reasons":["Derivative Works Filter"]},"preview":null}""",
     ], (Failed, {"code": "content_moderated", "retryable": False})),
    (PRO, "0b3f…", [
        r"""{"id":"0b3f…","status":"Error","result":null,"progress":null,"details":{"error":"internal"},"preview":null}""",
     ], FAILED_AGAIN),
    (PRO, "0b3f…", [
        r"""{"id":"nope","status":"Task not found","result":null,"progress":null,"details":null,"preview":null}""",
     ], GONE),
    # flux_fal.md, sections 4 and 5
    (DEV, "80e7…", [
        r"""{"status":"IN_QUEUE","request_id":"80e7…","queue_position":2,"response_url":"…","status_url":"…","cancel_url":"…","logs":null,"metrics":{}}""",
     ], RUNNING),
    (DEV, "80e7…", [
        r"""{"status":"IN_PROGRESS","request_id":"80e7…","logs":[{"timestamp":"2026-11-01T10:00:01.000Z","level":"INFO","source":"USER","message":"50%|#####     | 14/28"}],"response_url":"…"}""",
     ], RUNNING),
    (DEV, "80e7…", [
        r"""{"status":"COMPLETED","request_id":"80e7…","metrics":{"inference_time":2.31},"logs":null,"response_url":"…"}""",
        r"""{"images":[{"url":"https://v3.fal.media/files/rabbit/abc.jpeg","width":1024,"height":768,"content_type":"image/jpeg","file_name":"abc.jpeg","file_size":182407}],
 "timings":{"inference":2.3},"seed":42,"has_nsfw_concepts":[false],"prompt":"a red fox in snow"}""",
     ], (Succeeded, {})),
    (DEV, "80e7…", [
        r"""{"status":"COMPLETED","request_id":"80e7…","metrics":{},"error":"Request timed out","error_type":"request_timeout","response_url":"…"}""",
        r"""{"detail":"gone"}""",
     ], FAILED_AGAIN),
]  # fmt: skip

# flux_fal.md, section 9: what a webhook brings. It is a hint only: its request_id is polled.
HOOKS = [
    r"""{"request_id":"80e7…","gateway_request_id":"80e7…","status":"OK","payload":{"images":[{"url":"https://v3.fal.media/files/…/a.png","content_type":"image/png","width":1024,"height":768}],"seed":42}}""",
    r"""{"request_id":"80e7…","gateway_request_id":"80e7…","status":"ERROR","error":"Invalid status code: 422","payload":{"detail":[{"loc":["body","prompt"],"msg":"field required","type":"value_error.missing"}]}}""",
    r"""{"request_id":"80e7…","gateway_request_id":"80e7…","status":"OK","payload":null,"payload_error":"Response payload is not JSON serializable…"}""",
]
