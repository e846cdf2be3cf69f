// A conversation by Vercel's AI SDK: `ai_sdk_chat.mjs URL MODEL`; prints JSON.
import { createOpenAICompatible } from '@ai-sdk/openai-compatible';
import { generateObject, generateText, jsonSchema, streamText, tool } from 'ai';

const [url, name] = process.argv.slice(2);
const provider = createOpenAICompatible({
  name: 'local', baseURL: `${url}/v1`, apiKey: 'EMPTY',
  supportsStructuredOutputs: true, includeUsage: true,
});
const model = provider(name);
const asked = { model, temperature: 0, maxOutputTokens: 200, maxRetries: 0 };
const prompt = 'What is the capital of Japan?';
const effort = { local: { reasoningEffort: 'low' } };

const { text } = await generateText({ ...asked, prompt, providerOptions: effort });
const stream = streamText({ ...asked, prompt });
const pieces = [];
for await (const piece of stream.textStream) pieces.push(piece);
const usage = await stream.usage;
const city = { type: 'string', enum: ['Tokyo', 'Kyoto'] };
const schema = jsonSchema({
  type: 'object', properties: { city }, required: ['city'], additionalProperties: false,
});
const weather = tool({
  description: 'Tell the weather of a city', inputSchema: schema,
  execute: async (given) => `sunny in ${given.city}`,
});
const called = await generateText({
  ...asked, prompt: 'What is the weather in Tokyo?', tools: { weather }, toolChoice: 'required',
  providerOptions: { local: { parallel_tool_calls: false } },
});
const { object } = await generateObject({ ...asked, schema, prompt });
console.log(JSON.stringify({
  text, pieces, outputTokens: usage.outputTokens, object,
  results: called.toolResults.map((result) => result.output),
}));
