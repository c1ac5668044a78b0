// Makes pages live. Without it, all of them work through their forms.
"use strict";
(() => {
  const all = (selector) => document.querySelectorAll(selector);
  const later = (wait, call) => {
    let timer;
    return () => { clearTimeout(timer); timer = setTimeout(call, wait); };
  };
  const post = (path, fields) =>
    fetch(path, { method: "POST", body: new URLSearchParams(fields), credentials: "same-origin" });

  for (const part of all(".live")) part.hidden = false;

  // A form is sent once, and says that something happens.
  for (const form of all('form[method="post"]')) {
    form.addEventListener("submit", (event) => {
      if (event.defaultPrevented) return;
      if (form.dataset.sent) { event.preventDefault(); return; }
      form.dataset.sent = "yes";
      const busy = document.createElement("p");
      busy.className = "busy";
      busy.setAttribute("role", "status");
      form.append(busy);
      setTimeout(() => {
        for (const button of form.querySelectorAll("button")) button.setAttribute("aria-disabled", "true");
        busy.textContent = form.dataset.busy || "One moment, please.";
      }, 250);
    });
  }
  addEventListener("pageshow", (event) => { if (event.persisted) location.reload(); });

  // What an answer is read as, while it is typed.
  for (const input of all("input[data-column]")) {
    const read = document.getElementById(input.id.replace("answer", "read"));
    const hint = document.getElementById(input.id.replace("answer", "hint"));
    const csrf = input.form.elements.csrf.value;
    let turn = 0;
    const check = async () => {
      const own = ++turn;
      const text = input.value.trim();
      let said = { good: true, text: "" };
      try {
        if (text) said = await (await post("/check", { csrf, column: input.dataset.column, text })).json();
      } catch { /* it is checked when it is sent */ }
      if (own !== turn) return;
      read.textContent = said.text;
      read.classList.toggle("bad", !said.good);
      hint.hidden = said.text === hint.textContent;
    };
    input.addEventListener("input", later(400, check));
  }

  // Sliders.
  for (const form of all("form[data-live]")) {
    const outcome = document.getElementById("outcome");
    let turn = 0;
    const ask = later(300, async () => {
      const own = ++turn;
      outcome.setAttribute("aria-busy", "true");
      try {
        const answer = await post(form.dataset.live, new FormData(form));
        const text = await answer.text();
        if (own !== turn || answer.redirected) return;
        if (answer.ok) outcome.innerHTML = text; // escaped by the server
        else outcome.textContent = "This could not be worked out now. Please try again.";
      } catch {
        outcome.textContent = "The server cannot be reached. Please try again.";
      } finally {
        if (own === turn) outcome.removeAttribute("aria-busy");
      }
    });
    for (const slider of form.querySelectorAll("input[type=range]")) {
      const input = document.getElementById(slider.dataset.for);
      slider.hidden = false;
      slider.addEventListener("input", () => { input.value = slider.value; ask(); });
      input.addEventListener("input", () => {
        const value = Number(input.value.replaceAll(",", ""));
        if (Number.isFinite(value)) slider.value = value;
        ask();
      });
    }
    for (const select of form.querySelectorAll("select")) select.addEventListener("change", ask);
    for (const button of form.querySelectorAll(".plain-only")) button.hidden = true;
    for (const button of form.querySelectorAll("[data-reset]")) {
      button.addEventListener("click", () => {
        for (const field of form.querySelectorAll("[data-now]")) {
          field.value = field.dataset.now;
        }
        ask();
      });
    }
    form.addEventListener("submit", (event) => { event.preventDefault(); ask(); });
  }

  for (const button of all("[data-print]")) button.addEventListener("click", () => print());
  for (const button of all("[data-copy]")) {
    button.addEventListener("click", async () => {
      const said = button.nextElementSibling;
      try {
        await navigator.clipboard.writeText(button.dataset.copy);
        said.textContent = "Copied.";
      } catch { said.textContent = "Please copy the link by hand."; }
    });
  }

  for (const part of all("[data-refresh]")) {
    setInterval(async () => {
      if (document.hidden) return;
      try {
        const answer = await fetch(part.dataset.refresh, { credentials: "same-origin" });
        if (answer.ok) part.innerHTML = await answer.text();
      } catch { /* the next one may succeed */ }
    }, 5000);
  }
})();
