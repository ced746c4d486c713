// What gradio's components lack for people with a keyboard or a screen reader: names, and a slider that arrow keys move.
(() => {
  const name = (element, label) => element && element.getAttribute('aria-label') !== label && element.setAttribute('aria-label', label);

  const move = (handle, key) => {
    const box = handle.getBoundingClientRect();
    const frame = handle.parentElement.getBoundingClientRect();
    const [x, y] = [box.left + box.width / 2, box.top + box.height / 2];
    const step = frame.width / 20;
    const to = { ArrowLeft: x - step, ArrowRight: x + step, Home: frame.left, End: frame.right }[key];
    if (to === undefined) return false;
    const target = Math.min(Math.max(to, frame.left), frame.right);
    const send = (element, type, at) =>
      element.dispatchEvent(new MouseEvent(type, { clientX: at, clientY: y, view: window, bubbles: true, cancelable: true }));
    send(handle, 'mousedown', x);
    send(window, 'mousemove', target);
    send(window, 'mouseup', target);
    handle.setAttribute('aria-valuenow', Math.round((100 * (target - frame.left)) / frame.width));
    return true;
  };

  // What a mouse or a finger moved, for who hears where it is.
  const tell = () => requestAnimationFrame(() => document.querySelectorAll('[role=slider][data-testid=slider]').forEach((handle) => {
    const box = handle.getBoundingClientRect();
    const frame = handle.parentElement.getBoundingClientRect();
    if (frame.width) handle.setAttribute('aria-valuenow', Math.round((100 * (box.left + box.width / 2 - frame.left)) / frame.width));
  }));
  ['pointerup', 'touchend'].forEach((type) => window.addEventListener(type, tell));

  const mend = () => {
    document.querySelectorAll('#examples .thumbnail-item, button.upload-container').forEach((button) => {
      const text = button.innerText.replace(/\s+/g, ' ').trim();
      if (text) name(button, text);
    });
    for (const id of ['changes', 'experts']) {
      const button = document.querySelector(`#${id} .image-container > button`);
      name(button, document.querySelector(`#${id} label`)?.innerText.trim());
    }
    document.querySelectorAll('[data-testid=slider]').forEach((handle) => {
      if (handle.getAttribute('role') === 'slider') return;
      const attributes = { role: 'slider', tabindex: 0, 'aria-valuemin': 0, 'aria-valuemax': 100, 'aria-valuenow': 50 };
      Object.entries(attributes).forEach(([key, value]) => handle.setAttribute(key, value));
      name(handle, 'How much of the left picture is shown, in percent');
      handle.addEventListener('keydown', (event) => move(handle, event.key) && event.preventDefault());
    });
  };
  let due = 0; // once a frame, however much of the page changes
  const soon = () => {
    due ||= requestAnimationFrame(() => {
      due = 0;
      mend();
    });
  };
  new MutationObserver(soon).observe(document.documentElement, { childList: true, subtree: true });
})();
