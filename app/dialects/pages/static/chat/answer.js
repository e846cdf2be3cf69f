// Ask for answers and take them as they come: text, thinking, tool calls, figures.
//
// Knows the endpoint and nothing of views; nodes are filled in place and followers told of it.

import { events, send } from "../lib/api.js";
import { bodyOf } from "./parameters.js";
import { branch } from "./tree.js";

/** Answers that are being written: node id → { node, abort, follow }. */
export const live = new Map();

/** The messages of a branch, as the endpoint reads them. */
export function messagesOf(chat, leaf) {
  const messages = branch(chat, leaf).map((node) => {
    if (node.role === "tool") {
      return { role: "tool", tool_call_id: node.callId, content: node.content };
    }
    const message = { role: node.role, content: spoken(node) };
    if (node.calls?.length) {
      message.tool_calls = node.calls.map(({ id, name, args }) => (
        { id, type: "function", function: { name, arguments: args } }
      ));
    }
    return message;
  }).filter(({ role, content, tool_calls: calls }) => role !== "assistant" || content || calls);
  const system = chat.settings.system.trim();
  return system ? [{ role: "system", content: system }, ...messages] : messages;
}

/**
 * Have one answer per node written, all by one request, once the model is `ready`. Resolves when all
 * have ended, however; what went wrong is each node's `error`.
 */
export async function writeAnswers(chat, nodes, model, ready) {
  const controller = new AbortController();
  let began = performance.now();
  const followers = new Set();
  const tell = () => {
    for (const follower of [...followers]) follower();
  };
  const abort = () => controller.abort();
  const follow = (follower) => {
    followers.add(follower);
    return () => followers.delete(follower);
  };
  for (const node of nodes) live.set(node.id, { node, abort, follow });
  const clocks = nodes.map(() => ({ first: null, last: null, pieces: 0 }));
  let usage = null;
  try {
    const body = {
      ...bodyOf(chat.settings), model, messages: messagesOf(chat, nodes[0].parent), stream: true,
      stream_options: { include_usage: true }, ...(nodes.length > 1 ? { n: nodes.length } : {}),
    };
    if (nodes.length === 1) delete body.n;
    await unlessStopped(ready(), controller.signal);
    controller.signal.throwIfAborted();
    began = performance.now();
    const answer = await send("v1/chat/completions", { method: "POST", body, signal: controller.signal });
    for await (const data of events(answer)) {
      if (data === "[DONE]") break;
      const chunk = JSON.parse(data);
      if (chunk.error) throw new Error(chunk.error.message);
      if (chunk.usage) usage = chunk.usage;
      for (const choice of chunk.choices ?? []) {
        const node = nodes[choice.index];
        if (node === undefined) continue;
        if (take(node, choice)) tick(clocks[choice.index], node, began, nodes.length);
      }
      tell();
    }
    for (const node of nodes) if (!node.finish) node.error ??= "The connection ended early.";
  } catch (error) {
    const stopped = controller.signal.aborted;
    for (const node of nodes) {
      if (node.finish) continue;
      if (stopped) node.finish = "stopped";
      else node.error = wordsFor(error);
    }
  } finally {
    nodes.forEach((node, index) => {
      node.complete = Boolean(node.finish) && node.finish !== "stopped";
      sum(node, clocks[index], usage, nodes.length);
      live.delete(node.id);
    });
    tell();
  }
}

/** Answer text without its thinking; models that think put that first, between tags. */
export function spoken(node) {
  return node.role === "assistant" ? splitThinking(node).said : node.content;
}

/** Thinking and answer apart: the endpoint's own field, or `<think>` at the beginning. */
export function splitThinking(node) {
  const text = node.content;
  const begin = /^\s*<think>\n?/.exec(text);
  if (!begin) return { thought: node.reasoning ?? "", said: text, thinking: false };
  const end = text.indexOf("</think>", begin[0].length);
  const thought = (node.reasoning ?? "") + text.slice(begin[0].length, end < 0 ? undefined : end);
  if (end < 0) return { thought, said: "", thinking: true };
  return { thought, said: text.slice(end + 8).replace(/^\s+/, ""), thinking: false };
}

function take(node, { delta = {}, finish_reason: finish }) {
  let anything = false;
  if (delta.content) {
    node.content += delta.content;
    anything = true;
  }
  const thought = delta.reasoning_content ?? delta.reasoning;
  if (thought) {
    node.reasoning = (node.reasoning ?? "") + thought;
    anything = true;
  }
  for (const part of delta.tool_calls ?? []) {
    node.calls ??= [];
    const call = (node.calls[part.index] ??= { id: "", name: "", args: "" });
    if (part.id) call.id = part.id;
    if (part.function?.name) call.name = part.function.name;
    call.args += part.function?.arguments ?? "";
    anything = true;
  }
  if (finish) node.finish = finish;
  return anything;
}

function tick(clock, node, began, count) {
  const now = performance.now();
  clock.first ??= now;
  clock.last = now;
  clock.pieces += 1;
  const seconds = (now - clock.first) / 1000;
  node.stats = {
    ttftMs: Math.round(clock.first - began), tokens: clock.pieces, estimated: true,
    perSecond: seconds > 0.2 ? (clock.pieces - 1) / seconds : null, answers: count,
  };
}

function sum(node, clock, usage, count) {
  if (!node.stats || !usage) return;
  // the usage is that of all answers together; a piece is a token, or part of a character's
  const tokens = count === 1 ? usage.completion_tokens : clock.pieces;
  const seconds = (clock.last - clock.first) / 1000;
  node.stats = {
    ...node.stats, tokens, estimated: count > 1, prompt: usage.prompt_tokens,
    cached: usage.prompt_tokens_details?.cached_tokens ?? 0,
    perSecond: seconds > 0 && tokens > 1 ? (tokens - 1) / seconds : null,
  };
}

/** Wait for something, and no longer than until it is stopped: a model may take minutes to load. */
function unlessStopped(work, signal) {
  return new Promise((resolve, reject) => {
    signal.addEventListener("abort", () => reject(signal.reason), { once: true });
    work.then(resolve, reject);
  });
}

function wordsFor(error) {
  if (error instanceof TypeError) return "The server can't be reached.";
  if (error.retryAfterS) return `${error.message} (try again in ${error.retryAfterS} s)`;
  return error.message;
}
