// How an answer is asked for: every parameter of the endpoint, its default and what it does.

/** `name` is the endpoint's; `initial` the server's default, which is then not sent. */
export const PARAMETERS = [
  {
    name: "temperature", label: "Temperature", initial: 1, min: 0, max: 2, step: 0.05,
    hint: "How freely a token is drawn. 0 always takes the likeliest; above 1 it gets wild.",
  },
  {
    name: "top_p", label: "Top p", initial: 1, min: 0, max: 1, step: 0.01,
    hint: "Draws among the likeliest tokens that together have this probability. 1 is off.",
  },
  {
    name: "top_k", label: "Top k", initial: 0, min: 0, max: 1000, step: 1,
    hint: "Draws among so many of the likeliest tokens. 0 is off.",
  },
  {
    name: "min_p", label: "Min p", initial: 0, min: 0, max: 1, step: 0.01,
    hint: "Leaves out tokens less likely than this part of the likeliest one. 0 is off.",
  },
  {
    name: "repetition_penalty", label: "Repetition penalty", initial: 1, min: 0.05, max: 2, step: 0.05,
    hint: "Above 1 makes every token that has appeared, in the prompt too, less likely. 1 is off.",
  },
  {
    name: "presence_penalty", label: "Presence penalty", initial: 0, min: -2, max: 2, step: 0.1,
    hint: "Makes tokens less likely once they have appeared in the answer. 0 is off.",
  },
  {
    name: "frequency_penalty", label: "Frequency penalty", initial: 0, min: -2, max: 2, step: 0.1,
    hint: "The same, for each time that they have appeared. 0 is off.",
  },
  {
    name: "max_completion_tokens", label: "Most tokens", initial: null, min: 1, max: 2147483647, step: 1,
    hint: "Where an answer is cut off. Empty: only where the context is full.",
  },
  {
    name: "min_tokens", label: "Fewest tokens", initial: 0, min: 0, max: 2147483647, step: 1,
    hint: "The model can't end before so many.",
  },
  {
    name: "seed", label: "Seed", initial: null, min: 0, max: Number.MAX_SAFE_INTEGER, step: 1,
    hint: "The same question with the same seed gets the same answer. Empty: a new one each time.",
  },
  {
    name: "n", label: "Answers side by side", initial: 1, min: 1, max: 4, step: 1,
    hint: "Asks for several answers at once; the chat goes on from the one that you choose.",
  },
  {
    name: "stop", label: "Stop at", initial: "", kind: "lines",
    hint: "The answer ends before the first of these texts. One a line.",
  },
  {
    name: "stop_token_ids", label: "Stop at tokens", initial: "", kind: "numbers",
    hint: "The answer ends at one of these token ids. Separated by commas.",
  },
  {
    name: "logit_bias", label: "Logit bias", initial: "", kind: "json",
    hint: "Added to the logits of tokens before one is drawn, by token id: {\"50256\": -100}.",
  },
  {
    name: "reasoning_effort", label: "Thinking", initial: null, kind: "choice",
    options: ["none", "minimal", "low", "medium", "high"],
    hint: "How much a model that thinks does so before it answers.",
  },
  {
    name: "thinking_token_budget", label: "Most tokens of thinking", initial: null, min: 0, max: 2147483647, step: 1,
    hint: "Where thinking is ended and the answer begins. Empty: no limit of its own.",
  },
  {
    name: "chat_template_kwargs", label: "For the template", initial: "", kind: "json",
    hint: "Given to the model's chat template, which may know it: {\"enable_thinking\": false}.",
  },
  {
    name: "ignore_eos", label: "Ignore the end", initial: false, kind: "flag",
    hint: "Goes on where the model would end, up to the most tokens. For measuring.",
  },
];

/**
 * What a chat has set; empty texts ask for nothing. Small models ramble at the server's temperature,
 * which is OpenAI's.
 */
export const EMPTY_SETTINGS = {
  system: "", tools: "", tool_choice: "auto", schema: "", parameters: { temperature: 0.7, top_p: 0.9 },
};

/** A value that can't be sent, in words. */
export class WrongSetting extends Error {}

/** The fields of a request's body that a chat's settings mean. */
export function bodyOf(settings) {
  const body = {};
  for (const parameter of PARAMETERS) {
    const value = settings.parameters[parameter.name];
    if (value === undefined || value === null || value === parameter.initial) continue;
    const read = READERS[parameter.kind ?? "number"](parameter, value);
    if (read !== undefined) body[parameter.name] = read;
  }
  const tools = parse("Tools", settings.tools);
  if (tools !== undefined) {
    body.tools = Array.isArray(tools) ? tools : [tools];
    if (settings.tool_choice !== "auto") body.tool_choice = settings.tool_choice;
  }
  const schema = parse("JSON schema", settings.schema);
  if (schema !== undefined) {
    body.response_format = { type: "json_schema", json_schema: { name: "answer", schema, strict: true } };
  }
  return body;
}

/** Which settings differ from the defaults, for a summary. */
export function changedSettings(settings) {
  const changed = PARAMETERS.filter(({ name, initial }) => {
    const value = settings.parameters[name];
    return value !== undefined && value !== null && value !== initial;
  }).map(({ name, label, kind }) => {
    const value = settings.parameters[name];
    return kind ? label : `${label} ${value}`;
  });
  if (settings.system.trim()) changed.unshift("System prompt");
  if (settings.tools.trim()) changed.push("Tools");
  if (settings.schema.trim()) changed.push("JSON schema");
  return changed;
}

const READERS = {
  number: (_, value) => value,
  flag: (_, value) => value,
  choice: (_, value) => value,
  lines: (_, value) => {
    const lines = value.split("\n").filter((line) => line !== "");
    return lines.length ? lines : undefined;
  },
  numbers: ({ label }, value) => {
    const parts = value.split(/[\s,]+/).filter(Boolean);
    if (parts.some((part) => !/^\d+$/.test(part))) {
      throw new WrongSetting(`${label}: ${value} is no list of token ids`);
    }
    return parts.length ? parts.map(Number) : undefined;
  },
  json: ({ label }, value) => parse(label, value),
};

function parse(label, text) {
  if (!text.trim()) return undefined;
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new WrongSetting(`${label}: not JSON: ${error.message}`);
  }
}
