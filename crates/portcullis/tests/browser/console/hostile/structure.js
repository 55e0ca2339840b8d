// What of the page that is open no template of the console makes. Every element, attribute and address is looked at.
const TAGS = new Set((
  "html head meta title link script noscript body header nav main section article footer div span p a ul ol li dl dt dd h1 h2 h3 h4 " +
  "form label input select option textarea button fieldset legend details summary table caption thead tbody tfoot tr th td figure " +
  "figcaption img svg g path rect line polyline polygon circle text tspan title use code pre strong em small time hr br progress meter"
).split(" "));
const FORBIDDEN = new Set(["style", "srcdoc", "formaction", "background", "ping", "http-equiv", "xlink:href", "autoplay"]);
const OWN = /^(\/(?!\/)|#|\?)/;
const where = (element) => element.outerHTML.slice(0, 160);
const faults = [];
for (const element of document.querySelectorAll("*")) {
  const tag = element.localName;
  if (!TAGS.has(tag)) faults.push(`<${tag}>: ${where(element)}`);
  for (const { name, value } of element.attributes) {
    if (name.startsWith("on") || FORBIDDEN.has(name)) faults.push(`${name}: ${where(element)}`);
    if (["href", "src", "action", "data-tail", "data-live", "data-check"].includes(name)) {
      const isAsset = value.startsWith("/assets/");
      const isGood = ["script", "img", "link"].includes(tag) ? isAsset : OWN.test(value) && !value.includes("\\");
      const target = new URL(value, location.href);
      if (!isGood || target.origin !== location.origin) faults.push(`${name}=${value.slice(0, 80)}: ${where(element)}`);
    }
  }
  if (tag === "script" && element.textContent !== "") faults.push(`a script in line: ${where(element)}`);
}
const heads = document.querySelectorAll("head > meta").length;
if (heads !== 3) faults.push(`${heads} meta elements`);
// Characters that turn, hide or cut what is read.
const raw = document.body.innerText.match(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f\u200b\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]/);
if (raw) {
  const at = raw.index;
  faults.push(`U+${raw[0].codePointAt(0).toString(16)} in the text: ${JSON.stringify(document.body.innerText.slice(Math.max(0, at - 60), at + 20))}`);
}
return faults;
