// One short conversation with the official client, and what it found out as JSON.
import { Ollama } from "ollama";

const [host, model] = process.argv.slice(2);
const client = new Ollama({ host });
const options = { temperature: 0 };
const question = { role: "user", content: "What is the capital of Japan?" };

const first = await client.chat({ model, options, messages: [question] });
const second = await client.chat({
  model,
  options,
  messages: [question, first.message, { role: "user", content: "And of France?" }],
});
let pieces = 0;
let streamed = "";
let last = null;
for await (const part of await client.chat({ model, options, messages: [question], stream: true })) {
  pieces += 1;
  streamed += part.message.content;
  last = part;
}
const format = {
  type: "object",
  properties: { capital: { enum: ["Tokyo", "Kyoto"] } },
  required: ["capital"],
  additionalProperties: false,
};
const shaped = await client.generate({ model, options, format, prompt: question.content });
let refusal = null;
try {
  await client.chat({ model: "no/such", messages: [question] });
} catch (error) {
  refusal = [error.name, error.status_code];
}
console.log(
  JSON.stringify({
    first: first.message.content,
    second: second.message.content,
    streamed,
    pieces,
    done: last.done,
    rate: last.eval_count / last.eval_duration > 0,
    shaped: JSON.parse(shaped.response),
    models: (await client.list()).models.map((one) => one.name),
    shown: (await client.show({ model })).capabilities,
    loaded: (await client.ps()).models.length,
    version: (await client.version()).version,
    refusal,
  }),
);
