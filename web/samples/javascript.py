"""Samples in JavaScript: modules for Node 20 or newer; without its `process` and files for browsers, too."""

from __future__ import annotations

from pydantic import BaseModel

from web.samples.call import FETCHED, KEY, LONG_TIMEOUT_S, SENT, TIMEOUT_S, TOKEN, Call
from web.samples.writing import group, literal

_WORDS = {f'"{TOKEN}"': '"Bearer " + process.env.WXIAI_TOKEN', f'"{KEY}"': "crypto.randomUUID()"}
_ENDS = {
    "object": "/** @type {TYPE} */\nconst NOUN = await reply.json();\nconsole.log(NOUN);",
    "list": "/** @type {TYPE[]} */\nconst NOUN = (await reply.json()).data;\nconsole.log(NOUN);",
    "any": "/** @type {any} */\nconst NOUN = await reply.json();\nconsole.log(NOUN);",
    "text": "console.log(await reply.text());",
    "nothing": "console.log(reply.status);",
    "file": f'await writeFile("{FETCHED}", reply.body);',
    "events": """\
/** @type {ReadableStream<string>} */
const events = reply.body.pipeThrough(new TextDecoderStream());
for await (const text of events) console.log(text);""",
}
_TYPES = {
    "string": "string",
    "integer": "number",
    "number": "number",
    "boolean": "boolean",
    "array": "any[]",
    "object": "Record<string, any>",
}
_TYPED_FIELDS = 3


def program(call: Call) -> str:
    """The program."""
    headers = {**call.headers, **({"Content-Type": "application/json"} if call.body else {})}
    timeout_ms = 1000 * (LONG_TIMEOUT_S if call.is_long else TIMEOUT_S)
    given = [f'method: "{call.method}"'] if call.method != "GET" else []
    given += [f"headers: {literal(headers, _WORDS)}"] if headers else []
    given += [f"body: JSON.stringify({literal(call.body, _WORDS)})"] if call.body else []
    given += [f'body: await readFile("{SENT}")'] if call.declared.takes_file else []
    given += [f"signal: AbortSignal.timeout({timeout_ms:_})"]
    asked = group(f'fetch("{call.url}", {{', given, "})")
    wrong = "!reply.ok || !reply.body" if call.is_long else "!reply.ok"
    noun, kind = call.noun[0].lower() + call.noun[1:], _type(call.declared.returns)
    end = _ENDS[call.answer].replace("NOUN", noun).replace("TYPE", kind)
    code = f"const reply = await {asked};\nif ({wrong}) throw new Error(await reply.text());\n{end}"
    return _imports(code) + code


def _imports(code: str) -> str:
    needed = [name for name in ("readFile", "writeFile") if f"{name}(" in code]
    return "".join(f'import {{ {name} }} from "node:fs/promises";\n\n' for name in needed)


def _type(shape: type[BaseModel] | None) -> str:
    """The first fields of an answer in TypeScript, which editors read in comments."""
    schema = shape.model_json_schema() if shape else {}
    fields = {name: field for name, field in schema.get("properties", {}).items() if name != "object"}
    known = []
    for name, field in fields.items():
        of_field = schema.get("$defs", {}).get(field.get("$ref", "").rpartition("/")[2], field)
        if of_field.get("type") in _TYPES:
            known.append(f"{name}: {_TYPES[of_field['type']]}")
    shown = known[:_TYPED_FIELDS]
    more = ["[more: string]: any"] if len(shown) < len(fields) else []
    return f"{{{', '.join([*shown, *more])}}}"
