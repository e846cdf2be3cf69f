// What views are written with: Preact, its hooks, `html` templates, a store, icons, dialogs.

import { createElement as h, Fragment, render } from "../vendor/preact/preact.js";
import {
  useEffect, useLayoutEffect, useMemo, useRef, useState,
} from "../vendor/preact/hooks.js";
import htm from "../vendor/htm/htm.js";

export { Fragment, render, useEffect, useLayoutEffect, useMemo, useRef, useState };
export const html = htm.bind(h);

/** A value that views follow. `set` takes what changes of it; a new object each time. */
export function createStore(initial) {
  let value = initial;
  const followers = new Set();
  return {
    get: () => value,
    set(changes) {
      value = { ...value, ...changes };
      for (const follower of [...followers]) follower(value);
    },
    follow(follower) {
      followers.add(follower);
      return () => followers.delete(follower);
    },
  };
}

/** Draw the calling view anew whenever what `select` takes of a store is another value. */
export function useStore(store, select) {
  const chosen = select(store.get());
  const drawn = useRef(chosen);
  const chooser = useRef(select);
  const [, draw] = useState(0);
  drawn.current = chosen;
  chooser.current = select;
  useLayoutEffect(() => {
    const look = () => {
      if (chooser.current(store.get()) !== drawn.current) draw((count) => count + 1);
    };
    look(); // what changed between drawing and here
    return store.follow(look);
  }, [store]);
  return chosen;
}

const PATHS = {
  account: "M12 12a4 4 0 1 0 0-8 4 4 0 0 0 0 8Zm-7 8c0-3.3 3.1-6 7-6s7 2.7 7 6",
  arrow: "M12 19V5m0 0-6 6m6-6 6 6",
  branch: "M7 4v16M7 8c0 5 10 2 10 8v4",
  check: "m5 12.5 4.5 4.5L19 7.5",
  close: "M6 6l12 12M18 6 6 18",
  copy: "M9 9h10v11H9zM5 15V4h10",
  down: "M12 4v11m0 0-5-5m5 5 5-5M5 20h14",
  edit: "M4 20h4L19 9l-4-4L4 16zM13 7l4 4",
  keyboard: "M3 6h18v12H3zM7 10h.01M11 10h.01M15 10h.01M17 14h.01M7 14h.01M10 14h4",
  left: "m14 6-6 6 6 6",
  menu: "M4 7h16M4 12h16M4 17h16",
  more: "M5 12h.01M12 12h.01M19 12h.01",
  plus: "M12 5v14M5 12h14",
  redo: "M19 12a7 7 0 1 1-2-5l2 2m0-5v5h-5",
  right: "m10 6 6 6-6 6",
  sliders: "M4 8h9m5 0h2M4 16h2m5 0h9M18 8a2.5 2.5 0 1 1-5 0 2.5 2.5 0 0 1 5 0ZM11 16a2.500 2.500 0 1 1-5 0 2.500 2.500 0 0 1 5 0Z",
  stop: "M7 7h10v10H7z",
  theme: "M12 4a8 8 0 1 0 0 16zM12 4a8 8 0 0 1 0 16",
  trash: "M5 7h14M10 7V4h4v3M7 7l1 13h8l1-13",
};

/** A drawing beside words or an accessible name; by itself it says nothing. */
export function Icon({ name }) {
  return html`<svg viewBox="0 0 24 24" fill="none" stroke="currentColor" stroke-width="1.8"
    stroke-linecap="round" stroke-linejoin="round" aria-hidden="true" focusable="false"
    ><path d=${PATHS[name]} /></svg>`;
}

/** A button that shows an icon alone; `label` is its name and its tooltip. */
export function IconButton({ icon, label, small, className = "", ...others }) {
  const classes = `button quiet icon ${small ? "small" : ""} ${className}`;
  return html`<button type="button" class=${classes} aria-label=${label} title=${label} ...${others}
    ><${Icon} name=${icon} /></button>`;
}

/** A modal dialog that is open while it is drawn; `onClose` is asked to stop drawing it. */
export function Dialog({ title, onClose, className = "", children }) {
  const element = useRef(null);
  // before it is painted: drawn and not yet modal, it would let a key pass to what is behind it
  useLayoutEffect(() => {
    const before = document.activeElement;
    const dialog = element.current;
    dialog.showModal();
    return () => {
      dialog.close(); // while it is modal nothing behind it takes the focus
      before?.focus?.();
    };
  }, []);
  const onClick = (event) => {
    if (event.target === element.current) onClose(); // the backdrop
  };
  const onCancel = (event) => {
    event.preventDefault();
    onClose();
  };
  return html`<dialog ref=${element} class=${className} aria-labelledby="dialog-title"
    onClick=${onClick} onCancel=${onCancel}>
    <div class="head">
      <h2 id="dialog-title">${title}</h2>
      <${IconButton} icon="close" label="Close" onClick=${onClose} />
    </div>
    <div class="body">${children}</div>
  </dialog>`;
}

/** Choose `light`, `dark` or, with null, what the system says. */
export function setTheme(theme) {
  if (theme === null) delete document.documentElement.dataset.theme;
  else document.documentElement.dataset.theme = theme;
  try {
    if (theme === null) localStorage.removeItem("llmhost.theme");
    else localStorage.setItem("llmhost.theme", theme);
  } catch {
    // storage is off: it holds until the page is left
  }
}

/** The theme that was chosen; null: the system's. */
export function chosenTheme() {
  return document.documentElement.dataset.theme ?? null;
}
