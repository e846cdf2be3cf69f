// One short conversation with the official client, and what it found out as JSON.
import Anthropic from "@anthropic-ai/sdk";

const [baseURL, model] = process.argv.slice(2);
const client = new Anthropic({ baseURL, apiKey: "sk-none", maxRetries: 0 });
const asked = { model, max_tokens: 60, temperature: 0 };
const question = { role: "user", content: "What is the capital of Japan?" };
const text = (message) => message.content.filter((b) => b.type === "text").map((b) => b.text).join("");

const first = await client.messages.create({ ...asked, messages: [question] });
const second = await client.messages.create({
  ...asked,
  messages: [question, { role: "assistant", content: first.content }, { role: "user", content: "And of France?" }],
});

let pieces = 0;
const stream = client.messages.stream({ ...asked, messages: [question] });
stream.on("text", () => (pieces += 1));
const streamed = await stream.finalMessage();

const tool = {
  name: "get_weather",
  description: "Tells the weather.",
  input_schema: { type: "object", properties: { city: { enum: ["Tokyo", "Kyoto"] } }, required: ["city"], additionalProperties: false },
};
const called = await client.messages
  .stream({ ...asked, tools: [tool], tool_choice: { type: "any", disable_parallel_tool_use: true }, messages: [question] })
  .finalMessage();
const use = called.content.find((b) => b.type === "tool_use");
const after = await client.messages.create({
  ...asked,
  tools: [tool],
  messages: [
    question,
    { role: "assistant", content: called.content },
    { role: "user", content: [{ type: "tool_result", tool_use_id: use.id, content: "sunny" }] },
  ],
});

const count = await client.messages.countTokens({ model, messages: [question] });
const models = [];
for await (const one of client.models.list()) models.push(one.id);
let refusal = null;
try {
  await client.messages.create({ ...asked, model: "no/such", messages: [question] });
} catch (error) {
  refusal = [error.status, error.error.error.type, error instanceof Anthropic.NotFoundError];
}
console.log(
  JSON.stringify({
    first: text(first),
    second: text(second),
    streamed: text(streamed),
    pieces,
    counted: count.input_tokens === first.usage.input_tokens + first.usage.cache_read_input_tokens,
    call: [called.stop_reason, use.name, use.input],
    after: text(after),
    models,
    refusal,
  }),
);
