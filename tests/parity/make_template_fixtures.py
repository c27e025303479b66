"""Writes crates/model/tests/fixtures/templates.json: conversations as transformers renders them.

usage: make_template_fixtures.py

The templates are ours: the built-in one, and one that goes through what chat templates of real
models use of Jinja (namespaces, slices, string methods, tests, macros, loop controls, tojson).
"""

import json
import pathlib

from transformers.utils.chat_template_utils import render_jinja_template

ROOT = pathlib.Path(__file__).resolve().parents[2]
HERMES = (ROOT / "crates/model/src/chat_template/hermes.jinja").read_text()
FEATURES = r"""
{#- every construct that templates of real models use; it has tools -#}
{%- macro block(name, text) %}[{{ name | upper }}]{{ text | trim }}[/]{% endmacro %}
{{- bos_token }}
{%- set ns = namespace(last=-1, calls=0) %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system, rest = messages[0].content, messages[1:] %}
{%- else %}
    {%- set system, rest = 'default', messages %}
{%- endif %}
{{- block('system', system) }}
{%- for message in messages[::-1] %}
    {%- set index = (messages | length - 1) - loop.index0 %}
    {%- if ns.last < 0 and message.role == 'user' and not (message.content.startswith('<t>') and message.content.endswith('</t>')) %}
        {%- set ns.last = index %}
        {%- break %}
    {%- endif %}
{%- endfor %}
{{ ns.last }}
{% for message in rest %}
    {%- if message.content is not string %}{% continue %}{% endif %}
    {%- if message.role == 'assistant' and message.tool_calls is defined and message.tool_calls %}
        {%- for call in message.tool_calls %}
            {%- if call.function %}{% set call = call.function %}{% endif %}
            {%- set ns.calls = ns.calls + 1 %}
{{ ns.calls }}: {{ call.name }}({% for key, value in call.arguments.items() %}{{ key }}={{ value | tojson if value is mapping or value is sequence else value | string }}{{ ', ' if not loop.last }}{% endfor %})
        {%- endfor %}
    {%- else %}
{{ message['role'] ~ ': ' + message['content'].split('</think>')[-1].lstrip('\n') | trim }}
    {%- endif %}
{% endfor %}
{%- if tools is not none and tools %}
{{ tools | map(attribute='function') | map(attribute='name') | join('|') }}
{{ tools | tojson(indent=2) }}
{% endif %}
{%- if add_generation_prompt %}{{ eos_token }}assistant:{% endif -%}
"""

TOOLS = [
    {"type": "function", "function": {
        "name": "shell", "description": "Runs a command: `ls | wc -l` & <more> 'quoted' “é”.",
        "parameters": {"type": "object", "properties": {"cmd": {"type": "string"}},
                       "required": ["cmd"]}}},
    {"type": "function", "function": {
        "name": "apply_patch", "description": "Replaces text.",
        "parameters": {"type": "object",
                       "properties": {"path": {"type": "string"}, "old": {"type": "string"},
                                      "new": {"type": "string"}}}}},
]


def call(name, **arguments):
    return {"type": "function", "function": {"name": name, "arguments": arguments}}


TALK = [
    {"role": "system", "content": "You repair code."},
    {"role": "user", "content": "The sum is wrong: 1 < 2 && \"x\".\n"},
    {"role": "assistant", "content": "<think>\nhm\n</think>\n\nLooking.",
     "tool_calls": [call("shell", cmd="cat 'a b.py' | grep -n \"é\" && echo <done>")]},
    {"role": "tool", "content": "def add(a, b):\n    return a - b\n"},
    {"role": "tool", "content": "<t>second</t>"},
    {"role": "assistant", "content": "",
     "tool_calls": [call("apply_patch", path="a b.py", old="a - b\t", new="a + b"),
                    call("shell", cmd="python -c 'print(1)'")]},
    {"role": "tool", "content": ""},
    {"role": "assistant", "content": "Done – it adds now."},
    {"role": "user", "content": "<t>again</t>"},
]
CASES = [("whole", TALK), ("no system", TALK[1:]), ("start", TALK[:2]), ("tool last", TALK[:5]),
         ("one", [{"role": "user", "content": "Hi"}])]


def main():
    cases = []
    for template_name, template in (("hermes", HERMES), ("features", FEATURES)):
        for name, messages in CASES:
            for tools in (TOOLS, None):
                for prompt in (True, False):
                    rendered, _ = render_jinja_template(
                        [messages], tools=tools, chat_template=template,
                        add_generation_prompt=prompt, bos_token="<s>", eos_token="</s>")
                    cases.append(dict(template=template_name, name=name, messages=messages,
                                      tools=tools or [], add_generation_prompt=prompt,
                                      expected=rendered[0]))
    out = ROOT / "crates/model/tests/fixtures/templates.json"
    text = json.dumps(dict(features=FEATURES, cases=cases), ensure_ascii=False, indent=1)
    out.write_text(text + "\n")
    print(len(cases), "cases,", len(text), "bytes")


main()
