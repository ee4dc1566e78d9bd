// Make one tree of elements like another one, changing only what differs: what has the focus keeps it,
// what is chosen, opened or scrolled stays so.

const OWN = new Map([ // what a person has set, and the page must not undo
  ["INPUT", ["checked", "value"]],
  ["DETAILS", ["open"]],
  ["TEXTAREA", ["value"]],
]);

export function morph(old, fresh) {
  attributes(old, fresh);
  if (old.tagName !== "TEXTAREA") children(old, fresh);
}

function attributes(old, fresh) {
  const own = (old.type !== "hidden" && OWN.get(old.tagName)) || [];
  for (const { name } of [...old.attributes]) {
    if (!fresh.hasAttribute(name) && !own.includes(name)) old.removeAttribute(name);
  }
  for (const { name, value } of fresh.attributes) {
    if (!own.includes(name) && old.getAttribute(name) !== value) old.setAttribute(name, value);
  }
}

function children(old, fresh) {
  const named = new Map([...old.children].map((each) => [id(each), each]));
  named.delete("");
  let place = old.firstChild;
  for (const wanted of [...fresh.childNodes]) {
    const found = named.get(id(wanted)) || (alike(place, wanted) ? place : null);
    if (!found) {
      const added = document.importNode(wanted, true);
      old.insertBefore(added, place);
      if (added.dataset?.job) added.dataset.changed = "";
      continue;
    }
    if (found === place) place = place.nextSibling;
    else old.insertBefore(found, place);
    if (found.nodeType === Node.ELEMENT_NODE) {
      if (found.dataset.state && found.dataset.state !== wanted.dataset.state) mark(found);
      morph(found, wanted);
    } else if (found.data !== wanted.data) found.data = wanted.data;
  }
  while (place) {
    const next = place.nextSibling;
    place.remove();
    place = next;
  }
}

function alike(old, fresh) {
  if (!old || old.nodeType !== fresh.nodeType || old.nodeName !== fresh.nodeName) return false;
  return id(old) === id(fresh);
}

// Of a form `form.id` is its field of the name `id`.
function id(node) {
  return node.getAttribute?.("id") ?? "";
}

function mark(row) {
  delete row.dataset.changed;
  requestAnimationFrame(() => { row.dataset.changed = ""; });
}
