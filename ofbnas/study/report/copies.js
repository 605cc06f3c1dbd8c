// What can be taken away from the page: the table as CSV, and the id of an architecture.

const FORMULA = /^[=+\-@\t\r]/; // a spreadsheet would compute a text that begins so
const REVOKED_AFTER = 60_000; // milliseconds, in which the browser has long begun to save the file

// Rows as CSV (RFC 4180): all plain values of trials, under the table's names and in its units.
function csvOf(trials) {
  const rows = trials.map(({ hp, architecture, ...values }) => {
    const swept = Object.entries(hp).map(([name, value]) => [`hp.${name}`, value]);
    const sizes = architecture ? [["architecture", JSON.stringify(architecture)]] : [];
    return Object.fromEntries([...Object.entries(values), ...swept, ...sizes]);
  });
  const names = [...new Set(rows.flatMap((row) => Object.keys(row)))];
  const lines = [names, ...rows.map((row) => names.map((name) => row[name]))];
  return lines.map((line) => `${line.map(csvCell).join(",")}\r\n`).join("");
}

function csvCell(value) {
  if (isMissing(value)) return "";
  if (typeof value === "number") return String(value);
  const text = String(value);
  const safe = FORMULA.test(text) ? `'${text}` : text;
  return /[",\r\n]/.test(safe) ? `"${safe.replaceAll('"', '""')}"` : safe;
}

function download(name, text) {
  const address = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  const link = html("a", { href: address, download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(address), REVOKED_AFTER);
}

// Copy a text, and say so on the button for a moment.
async function copyText(button, text) {
  let said = "Copied";
  try {
    await navigator.clipboard.writeText(text);
  } catch {
    said = "Not allowed here"; // such as by a browser without a clipboard for this page
  }
  const before = button.dataset.label ?? button.textContent;
  button.dataset.label = before;
  button.textContent = said;
  setTimeout(() => (button.textContent = before), 1500);
}
