// Search, filters and links of the policy page. The state lives in the address after `#`: an operationId, or `?` and
// the filters. Everything shown is in the page already; this only hides rows.
"use strict";

{
  const part = (name) => document.getElementById(`page.${name}`);
  const form = part("filter");
  const search = part("search");
  const boxes = [...form.querySelectorAll("input[name=bucket]")];
  const choices = [part("tag"), part("ends")];
  const sections = [...part("list").querySelectorAll("section")].map((node) => ({
    node,
    count: node.querySelector("h2 .count"),
    rows: [...node.querySelectorAll("li[id]")].map((row) => ({
      node: row,
      text: [...row.querySelectorAll(".method, .path, .id, .text")].map((n) => n.textContent).join("\n").toLowerCase(),
      ...row.dataset,
    })),
  }));
  const rows = new Map(sections.flatMap((section) => section.rows.map((row) => [row.node.id, row.node])));
  let typing = false;

  function show(node, count) {
    const { total } = node.dataset;
    const words = count === Number(total) ? total : `${count} of ${total}`;
    if (node.textContent !== words) node.textContent = words;
  }

  // Every bucket shows how many of its operations fit the other filters: what ticking it shows.
  function apply() {
    const words = search.value.toLowerCase().split(/\s+/).filter(Boolean);
    const buckets = boxes.filter((box) => box.checked).map((box) => box.value);
    const [tag, ends] = choices.map((choice) => choice.value);
    const fits = (row) =>
      (!tag || row.tag === tag) &&
      (!ends || (ends === "any" ? row.ends !== "" : row.ends === ends)) &&
      words.every((word) => row.text.includes(word));
    const counts = new Map(boxes.map((box) => [box.value, 0]));
    let shown = 0;
    for (const section of sections) {
      let here = 0;
      for (const row of section.rows) {
        const fitting = fits(row);
        const visible = fitting && (!buckets.length || buckets.includes(row.verdict));
        if (fitting) counts.set(row.verdict, counts.get(row.verdict) + 1);
        if (visible) here += 1;
        row.node.hidden = !visible;
      }
      section.node.hidden = here === 0;
      show(section.count, here);
      shown += here;
    }
    for (const count of form.querySelectorAll(".count")) show(count, counts.get(count.dataset.verdict));
    part("shown").textContent = `${shown === rows.size ? shown : `${shown} of ${rows.size}`} operations`;
    part("nothing").hidden = shown > 0;
  }

  function reveal(row) {
    const details = row.querySelector("details");
    details.open = true;
    row.scrollIntoView({ block: "start" });
    details.querySelector("summary").focus({ preventScroll: true });
  }

  function read() {
    const [name, query = ""] = location.hash.slice(1).split(/\?(.*)/s);
    const state = new URLSearchParams(query);
    const buckets = state.getAll("bucket");
    search.value = state.get("q") ?? "";
    for (const box of boxes) box.checked = buckets.some((b) => box.value === b || box.value.startsWith(`${b}-`));
    for (const choice of choices) {
      choice.value = state.get(choice.name) ?? "";
      if (choice.selectedIndex < 0) choice.value = "";
    }
    typing = false;
    apply();
    let row;
    try {
      row = rows.get(decodeURIComponent(name));
    } catch {
      return; // an address that somebody cut in the middle of an escape
    }
    if (row) reveal(row);
  }

  function write() {
    const state = new URLSearchParams([...new FormData(form)].filter(([, value]) => value));
    const address = location.href.split("#")[0] + (state.size ? `#?${state}` : "");
    if (address !== location.href) history[typing ? "replaceState" : "pushState"](null, "", address);
  }

  form.addEventListener("input", (event) => {
    apply();
    write();
    typing = event.target === search; // one step back undoes a search, not its last letter
  });
  form.addEventListener("change", () => {
    typing = false;
  });
  form.addEventListener("reset", (event) => {
    event.preventDefault();
    for (const field of [search, ...choices]) field.value = "";
    for (const box of boxes) box.checked = false;
    typing = false;
    apply();
    write();
    search.focus();
  });
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    part("list").querySelector("section:not([hidden]) li:not([hidden]) summary")?.focus();
  });
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || event.altKey) return;
    if (event.target.closest("input, select, textarea")) return;
    event.preventDefault();
    search.focus();
    search.select();
  });
  document.querySelector(".skip").addEventListener("click", (event) => {
    event.preventDefault(); // the address stays what it is: the filters
    part("list").focus();
  });
  part("list").addEventListener("click", async (event) => {
    const link = event.target.closest(".permalink");
    if (!link || event.ctrlKey || event.metaKey || event.shiftKey || !navigator.clipboard) return;
    event.preventDefault();
    try {
      await navigator.clipboard.writeText(link.href);
    } catch {
      location.hash = link.hash;
      return;
    }
    part("copied").textContent = `Copied ${link.href}`;
    link.classList.add("copied");
    setTimeout(() => link.classList.remove("copied"), 2000);
  });
  window.addEventListener("hashchange", read);

  // The links lead into the relay that serves this page; a copy elsewhere has none behind it.
  part("links").hidden = !(location.protocol.startsWith("http") && location.pathname === part("links").dataset.address);
  part("scriptless").hidden = true;
  part("controls").disabled = false;
  read();
  window.addEventListener("load", () => requestAnimationFrame(read)); // the browser's own jump takes the focus away
}
