// A conversation by the official client for Node: `node_chat.mjs URL MODEL`; prints JSON.
import OpenAI from 'openai';

const [url, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL: `${url}/v1`, apiKey: 'EMPTY', maxRetries: 0 });
const question = { role: 'user', content: 'What is the capital of Japan?' };
const asked = { model, temperature: 0, max_tokens: 64 };

const whole = await client.chat.completions.create({ ...asked, messages: [question] });
const answer = whole.choices[0].message;
const messages = [question, answer, { role: 'user', content: 'And of France?' }];
const stream = await client.chat.completions.create({
  ...asked, messages, stream: true, stream_options: { include_usage: true },
});
const chunks = [];
for await (const chunk of stream) chunks.push(chunk);

// its own loop over tools: it calls the function and sends the result back
const cities = [];
const parameters = {
  type: 'object',
  properties: { city: { type: 'string', enum: ['Tokyo', 'Kyoto'] } },
  required: ['city'],
  additionalProperties: false,
};
const weather = {
  name: 'get_weather',
  description: 'Tell the weather of a city',
  parameters,
  parse: JSON.parse,
  function: ({ city }) => { cities.push(city); return `It is sunny in ${city}.`; },
};
const runner = client.chat.completions.runTools({
  ...asked,
  messages: [{ role: 'user', content: 'What is the weather in Tokyo?' }],
  tools: [{ type: 'function', function: weather }],
  tool_choice: { type: 'function', function: { name: 'get_weather' } },
  parallel_tool_calls: false,
});
await runner.done();

const response = await client.responses.create({
  model, temperature: 0, input: 'What is the capital of Japan?',
});
const refusal = await client.models.retrieve('no/such').catch((error) => error);

console.log(JSON.stringify({
  first: answer.content,
  second: chunks.map((chunk) => chunk.choices[0]?.delta.content ?? '').join(''),
  pieces: chunks.length,
  usage: chunks.at(-1).usage.total_tokens,
  cities,
  responses: response.output_text,
  refusal: [refusal instanceof OpenAI.NotFoundError, refusal.code, refusal.requestID !== null],
}));
