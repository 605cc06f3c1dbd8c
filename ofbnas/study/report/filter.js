// The filter of the table of trials: words, comparisons of columns, and, or, not and parentheses.
// A text is taken apart here and never run. For example: top1 > 98 and (gmacs < 0.1 or not failed)

const TOKEN = /\s*("[^"]*"|'[^']*'|<=|>=|!=|==|[<>=()]|[^\s<>=!()"']+|\S)/gy;
const COMPARISONS = {
  "<": (order) => order < 0,
  "<=": (order) => order <= 0,
  ">": (order) => order > 0,
  ">=": (order) => order >= 0,
  "=": (order) => order === 0,
  "==": (order) => order === 0,
  "!=": (order) => order !== 0,
};
const RESERVED = ["and", "or", "not", "(", ")", ...Object.keys(COMPARISONS)];

// What tells whether a row passes: a function of its trial and the texts of its cells.
// Throws a SyntaxError, whose message is for the user.
function parseFilter(text, columns) {
  const tokens = text.match(TOKEN)?.map((token) => token.trim()).filter(Boolean) ?? [];
  let next = 0;
  const word = () => tokens[next]?.toLowerCase();
  const accept = (expected) => word() === expected && Boolean(next += 1);

  function alternatives() {
    const parts = [conjunction()];
    while (accept("or")) parts.push(conjunction());
    return (...row) => parts.some((part) => part(...row));
  }

  // Terms side by side have to hold together, with or without "and".
  function conjunction() {
    const parts = [negation()];
    while (accept("and") || (next < tokens.length && !["or", ")"].includes(word()))) parts.push(negation());
    return (...row) => parts.every((part) => part(...row));
  }

  function negation() {
    if (!accept("not")) return term();
    const part = negation();
    return (...row) => !part(...row);
  }

  function term() {
    if (accept("(")) {
      const inside = alternatives();
      if (!accept(")")) throw new SyntaxError("a parenthesis is not closed");
      return inside;
    }
    const name = operand("a word or a comparison such as top1 > 98 is missing");
    const sign = word();
    if (!(sign in COMPARISONS)) return containing(name);
    next += 1;
    return comparison(name, sign, operand(`${name} ${sign} needs a value`), columns);
  }

  function operand(otherwise) {
    if (next >= tokens.length || RESERVED.includes(word())) throw new SyntaxError(otherwise);
    next += 1;
    return tokens[next - 1].replace(/^(["'])(.*)\1$/, "$2");
  }

  if (!tokens.length) return () => true;
  const whole = alternatives();
  if (next < tokens.length) throw new SyntaxError("a parenthesis is closed that was not opened");
  return whole;
}

// Whether some cell contains a text.
function containing(text) {
  const wanted = text.toLowerCase();
  return (_trial, cells) => cells.some((cell) => cell.toLowerCase().includes(wanted));
}

// Whether a column's value, in the table's own unit, compares so; a missing value never does.
function comparison(name, sign, text, columns) {
  const column = columns.find(({ key }) => [name, `hp.${name}`].includes(key));
  if (!column) {
    throw new SyntaxError(`there is no column ${name}; expected one of ${columns.map(({ key }) => key).join(", ")}`);
  }
  const numeric = state.data.trials.some((trial) => typeof column.value(trial) === "number");
  const number = Number(text);
  if (numeric && Number.isNaN(number)) throw new SyntaxError(`${name} is a number, but ${text} is not`);
  const holds = COMPARISONS[sign];
  return (trial) => {
    const value = column.value(trial);
    if (isMissing(value)) return false;
    return holds(numeric ? value - number : String(value).localeCompare(text, "en", { sensitivity: "base" }));
  };
}
