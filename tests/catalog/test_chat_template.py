import pytest

from app.catalog.chat_template import ChatTemplate
from app.errors import InvalidParameter, ModelBroken
from app.generation.requests import ChatMessage

TEMPLATES = {
    "SmolLM2": (
        "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}"
        "{{ '<|im_start|>system\nYou are a helpful AI assistant named SmolLM, trained by Hugging "
        "Face<|im_end|>\n' }}{% endif %}{{'<|im_start|>' + message['role'] + '\n' + "
        "message['content'] + '<|im_end|>' + '\n'}}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
    ),
    "Llama 3": """
{{- bos_token }}
{%- if not date_string is defined %}
    {%- set date_string = strftime_now("%d %b %Y") if strftime_now is defined else "26 Jul 2024" %}
{%- endif %}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}
{{- "<|start_header_id|>system<|end_header_id|>\\n\\n" }}
{%- if tools is not none %}{{- "Environment: ipython\\n" }}{%- endif %}
{{- "Today Date: " + date_string + "\\n\\n" + system_message + "<|eot_id|>" }}
{%- for message in messages %}
    {{- '<|start_header_id|>' + message['role'] + '<|end_header_id|>\\n\\n' }}
    {{- message['content'] | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}
""",
    "Gemma": (
        "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('System role "
        "not supported') }}{% endif %}{% for message in messages %}{% if (message['role'] == "
        "'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('Conversation roles must alternate "
        "user/assistant/user/assistant/...') }}{% endif %}{% if (message['role'] == 'assistant') %}"
        "{% set role = 'model' %}{% else %}{% set role = message['role'] %}{% endif %}"
        "{{ '<start_of_turn>' + role + '\n' + message['content'] | trim + '<end_of_turn>\n' }}"
        "{% endfor %}{% if add_generation_prompt %}{{'<start_of_turn>model\n'}}{% endif %}"
    ),
    "Mistral": """{%- set ns = namespace(index=0) %}
{{- bos_token }}
{%- for message in messages %}
    {%- if message.role == "system" %}{%- continue %}{%- endif %}
    {%- if message.role == "user" %}
        {{- " [INST] " + message.content + " [/INST]" }}
    {%- else %}
        {% generation %}{{- " " + message.content|trim + eos_token }}{% endgeneration %}
    {%- endif %}
    {%- set ns.index = ns.index + 1 %}
{%- endfor %}
{% if pad_token is defined %}never{% endif %}
    {% if ns.index > 2 %}
    turns: {{ ns.index }}
    {% endif %}
""",
    "tojson": "{% for m in messages %}{{ m | tojson }}{{ m | tojson(indent=2) }}{% endfor %}",
}
CONVERSATIONS = {
    "one turn": [("user", "Hello <b>&</b> 'quotes' \"é\" 😀")],
    "with a system message": [("system", " Be brief. "), ("user", "Hi\n\nthere ")],
    "three turns": [("user", "Hi"), ("assistant", " Hello! "), ("user", "And now?")],
}
CASES = [
    (name, conversation)
    for name in TEMPLATES
    for conversation in CONVERSATIONS
    if (name, conversation) != ("Gemma", "with a system message")  # it refuses that, see below
]
TOKENS = {"bos_token": "<s>", "eos_token": "</s>"}


def messages(*turns: tuple[str, str]) -> list[ChatMessage]:
    return [ChatMessage(role, content) for role, content in turns]


@pytest.mark.parametrize(("name", "conversation"), CASES)
@pytest.mark.parametrize("add_generation_prompt", [True, False])
def test_text_is_what_transformers_renders(name, conversation, add_generation_prompt):
    utilities = pytest.importorskip("transformers.utils.chat_template_utils")
    turns = CONVERSATIONS[conversation]
    [theirs], _ = utilities.render_jinja_template(
        conversations=[[{"role": role, "content": content} for role, content in turns]],
        chat_template=TEMPLATES[name],
        add_generation_prompt=add_generation_prompt,
        **TOKENS,
    )
    ours = ChatTemplate(TEMPLATES[name], **TOKENS).render(
        messages(*turns), add_generation_prompt=add_generation_prompt
    )
    assert ours == theirs


def test_a_conversation_that_the_template_refuses_is_the_clients_to_mend():
    template = ChatTemplate(TEMPLATES["Gemma"], **TOKENS)
    with pytest.raises(InvalidParameter, match="System role not supported") as refused:
        template.render(messages(("system", "Be brief."), ("user", "Hi")))
    assert refused.value.field == "messages"
    assert refused.value.value == ["system", "user"]


def test_an_absent_token_is_undefined_and_not_the_word_none():
    source = "{{ bos_token }}{% if eos_token is defined %}{{ eos_token }}{% endif %}|"
    assert ChatTemplate(source).render(messages(("user", "Hi"))) == "|"
    assert ChatTemplate(source, eos_token="</s>").render([]) == "</s>|"


@pytest.mark.parametrize(
    "source",
    [
        "{{ ''.__class__.__mro__[1].__subclasses__() }}",
        "{{ messages.__init__.__globals__ }}",
        "{{ raise_exception.__globals__['__builtins__'] }}",
        "{{ '{0.__class__.__init__.__globals__}'.format(messages) }}",
        "{{ messages.append(1) }}",
        "{{ cycler.__init__.__globals__.os.popen('id').read() }}",
        "{% for i in range(1000000000) %}x{% endfor %}",
        "{{ 1 // 0 }}",
        "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}",
    ],
)
def test_a_hostile_template_gets_nowhere(source):
    with pytest.raises((ModelBroken, InvalidParameter)):
        ChatTemplate(source).render(messages(("user", "Hi")))


def test_a_template_that_is_none_is_a_broken_model():
    with pytest.raises(ModelBroken, match="chat template, line 2"):
        ChatTemplate("a\n{% if %}")
