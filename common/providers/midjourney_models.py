"""What Midjourney's models take and cost. Facts: fact sheet midjourney_proxy.md, section 3."""

from __future__ import annotations

from common.providers.base import ModelSpec
from common.providers.inputs import choice, form, picture, pictures, switch, whole, words

IMAGINE, ACTION, BLEND = "midjourney/imagine", "midjourney/action", "midjourney/blend"
DESCRIBE, SHORTEN = "midjourney/describe", "midjourney/shorten"
IN_WORDS = (DESCRIBE, SHORTEN)  # their results are prompts, not media
DIMENSIONS = {"2:3": "PORTRAIT", "1:1": "SQUARE", "3:2": "LANDSCAPE"}  # section 3, blend

_PROMPT = "What to draw. Midjourney's own flags (--v 7, --niji 6, --stylize 100 …) may stand at its end."
_RATIO = {
    "type": "string",
    "title": "Aspect ratio",
    "description": "Width to height, e.g. 16:9; sent as --ar.",
    "pattern": r"^[1-9][0-9]{0,2}:[1-9][0-9]{0,2}$",
    "maxLength": 7,
    "examples": ["16:9"],
}

_SPLIT = switch("Split", "Four pictures instead of one grid of four.", False)
_BOT = choice("Bot", "Which bot draws, where the server offers both.", ("MID_JOURNEY", "NIJI_JOURNEY"))

MODELS = (
    ModelSpec(
        id=IMAGINE,
        kind="image",
        title="Midjourney Imagine",
        input_schema=form(
            "Midjourney Imagine",
            {
                "prompt": words("Prompt", _PROMPT, longest=6000, required=True),
                "negative_prompt": words(
                    "Negative prompt", "What to leave out; sent as --no.", longest=2000, example="blur, text"
                ),
                "aspect_ratio": _RATIO,
                "seed": whole("Seed", "For repeatable results; sent as --seed.", 0, 4_294_967_295),
                "mode": choice(
                    "Mode",
                    "Speed, which sets the price. A speed flag in the prompt gives way to it.",
                    ("fast", "relax", "turbo"),
                    "fast",
                ),
                "images": pictures("Reference pictures", "What the picture is to look like.", 1, 5),
                "split": _SPLIT,
                "bot_type": _BOT,
            },
        ),
        price={"by": ["mode"], "table": {"turbo": 10, "fast": 5, "relax": 2}},
        expected_s=60,
        first_poll_s=5,
        poll_every_s=3,
        action="imagine",
    ),
    ModelSpec(
        id=ACTION,
        kind="image",
        title="Midjourney Action",
        input_schema=form(
            "Midjourney Action",
            {
                "action": {
                    "type": "string",
                    "title": "Action",
                    "description": "The id of one of the parent job's `actions`, e.g. upsample_1.",
                    "pattern": "^[a-z0-9_]+$",
                    "maxLength": 64,
                    "examples": ["upsample_1"],
                },
                "prompt": words(
                    "Prompt",
                    "For actions that ask for one (custom zoom, remix); otherwise the parent's stays. "
                    "Speed flags are taken out.",
                    longest=6000,
                ),
                "split": _SPLIT,
                "mask": picture(
                    "Mask", "For vary_region: a PNG whose white parts are painted again, with a prompt."
                ),
            },
            required=("action",),
        ),
        # One price: the protocol has no way to choose an action's speed, so a `mode` would only change the price.
        price={"credits": 5},
        expected_s=45,
        first_poll_s=3,
        poll_every_s=3,
        action="action",
        follows=(IMAGINE, ACTION, BLEND),
    ),
    ModelSpec(
        id=BLEND,
        kind="image",
        title="Midjourney Blend",
        input_schema=form(
            "Midjourney Blend",
            {
                "images": pictures("Pictures", "What is blended into one picture.", 2, 5),
                "aspect_ratio": choice("Aspect ratio", "Width to height.", tuple(DIMENSIONS), "1:1"),
                "split": _SPLIT,
                "bot_type": _BOT,
            },
            required=("images",),
        ),
        price={"credits": 5},  # as a fast imagine, which it is at Midjourney
        expected_s=60,
        first_poll_s=5,
        poll_every_s=3,
        action="blend",
    ),
    ModelSpec(
        id=DESCRIBE,
        kind="text",
        title="Midjourney Describe",
        input_schema=form(
            "Midjourney Describe",
            {"image": picture("Picture", "What prompts are found for."), "bot_type": _BOT},
            required=("image",),
        ),
        price={"credits": 1},  # takes no time of the subscription's
        expected_s=15,
        first_poll_s=3,
        poll_every_s=3,
        action="describe",
    ),
    ModelSpec(
        id=SHORTEN,
        kind="text",
        title="Midjourney Shorten",
        input_schema=form(
            "Midjourney Shorten",
            {
                "prompt": words("Prompt", "What shorter prompts are found for.", longest=6000, required=True),
                "bot_type": _BOT,
            },
        ),
        price={"credits": 1},
        expected_s=15,
        first_poll_s=3,
        poll_every_s=3,
        action="shorten",
    ),
)

QUIRKS = (
    "Midjourney has no API: a midjourney-proxy server drives a Discord account. Servers of the novicezk family (NZ) "
    "know imagine, change, blend and describe; buttons, vary_region and shorten need one of the trueai family (TA).",
    "A server that keeps its tasks in memory forgets them when it restarts; their jobs fail with a release.",
    "A cancel is confirmed by TA with an admin's secret only, and Discord may go on drawing.",
    "Speed flags inside a prompt give way to `mode`, which sets the price; an action, which has one price, runs at the "
    "server's own speed.",
    "A grid is one picture of four, unless `split` asks for four: where the server has them apart, those are taken, "
    "else the grid is cut.",
    "A seed is told by TA's servers only; it stands in the job's `output`. A picture that comes without is asked about "
    "once, for at most ten seconds.",
    "Pictures always go to the server as bytes: addresses are fetched by the worker first.",
)
