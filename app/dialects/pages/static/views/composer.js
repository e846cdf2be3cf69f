// The question: typed, sent, and stopped; how much of the context is left.

import { html, Icon, useEffect, useRef, useState, useStore } from "../lib/ui.js";
import { live } from "../chat/answer.js";
import { chosenModel, models } from "../chat/models.js";
import { changedSettings, bodyOf, WrongSetting } from "../chat/parameters.js";
import { askQuestion, fail, show, state, stop } from "../chat/state.js";
import { branch } from "../chat/tree.js";

export function Composer() {
  const chat = useStore(state, (now) => now.chat);
  useStore(state, (now) => now.version);
  const model = useStore(models, chosenModel);
  const area = useRef(null);
  const [empty, setEmpty] = useState(true);
  const writing = [...live.keys()].some((id) => chat.nodes[id]);
  useEffect(() => {
    if (matchMedia("(hover: hover)").matches) area.current.focus(); // no keyboard pops up unasked
  }, [chat]);
  const ask = (event) => {
    event.preventDefault();
    const text = area.current.value.trim();
    if (!text || writing || model === null) return;
    try {
      bodyOf(chat.settings);
    } catch (error) {
      if (!(error instanceof WrongSetting)) throw error;
      fail(error);
      return;
    }
    area.current.value = "";
    area.current.style.height = "";
    setEmpty(true);
    askQuestion(text);
  };
  const onKeyDown = (event) => {
    if (event.key === "Enter" && !event.shiftKey && !event.isComposing) ask(event);
  };
  const onInput = ({ target }) => {
    setEmpty(!target.value.trim());
    if (CSS.supports("field-sizing", "content")) return;
    target.style.height = "auto";
    target.style.height = `${target.scrollHeight}px`;
  };
  const changed = changedSettings(chat.settings);
  return html`<form class="composer" onSubmit=${ask} aria-label="Your question">
    <div class="box">
      <label class="sr-only" for="question">Question</label>
      <textarea id="question" ref=${area} rows="1" dir="auto" placeholder="Ask something" enterkeyhint="send"
        aria-describedby="composer-hint" onInput=${onInput}
        onKeyDown=${onKeyDown}></textarea>
      ${writing
        ? html`<button type="button" class="button icon primary" aria-label="Stop (Esc)" title="Stop (Esc)" onClick=${stop}>
            <${Icon} name="stop" /></button>`
        : html`<button class="button icon primary" aria-label="Send (Enter)" title="Send (Enter)"
            disabled=${empty || model === null}><${Icon} name="arrow" /></button>`}
    </div>
    <div class="under tiny muted">
      <span id="composer-hint" class="sr-only">Enter sends, Shift and Enter begin a new line.</span>
      ${changed.length > 0
        ? html`<button type="button" class="link cut" onClick=${() => show("settings")}>${changed.join(" · ")}</button>`
        : html`<span class="cut">Language models make mistakes.</span>`}
      <${Room} chat=${chat} model=${model} />
    </div>
  </form>`;
}

function Room({ chat, model }) {
  const counted = branch(chat).findLast(({ stats }) => stats?.prompt !== undefined);
  if (!counted || !model) return null;
  const used = counted.stats.prompt + counted.stats.tokens;
  const left = Math.max(0, model.context - used);
  const text = `${left.toLocaleString()} of ${model.context.toLocaleString()} tokens left`;
  return html`<span class="room number" title="What the context has room for beside this conversation">
    <progress max=${model.context} value=${used} aria-label="Context used"></progress>${text}</span>`;
}
