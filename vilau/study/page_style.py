"""The look of a report: one style sheet, light and dark, no fonts or scripts from elsewhere."""

CSS = """
:root {
  color-scheme: light dark;
  --paper: #fbfbf9; --card: #ffffff; --ink: #1c2128; --soft: #5d6672; --faint: #8b939e;
  --line: #e4e5e2; --tint: #f2f3ef; --accent: #2f63d6; --good: #12805c; --bad: #c2334d;
  --good-tint: #e3f4ec; --bad-tint: #fbe7ea; --open-tint: #eef0f3; --shadow: 0 1px 2px #1c212810;
}
@media (prefers-color-scheme: dark) {
  :root {
    --paper: #121519; --card: #1a1e24; --ink: #e8eaed; --soft: #a3acb8; --faint: #7b8490;
    --line: #2b313a; --tint: #20252c; --accent: #7da6ff; --good: #4fc796; --bad: #ff7d92;
    --good-tint: #17322a; --bad-tint: #3a2027; --open-tint: #262c34; --shadow: none;
  }
}
* { box-sizing: border-box; }
html { scroll-behavior: smooth; scroll-padding-top: 4rem; }
body {
  margin: 0; background: var(--paper); color: var(--ink);
  font: 16px/1.55 system-ui, -apple-system, "Segoe UI", "Helvetica Neue", sans-serif;
}
main { max-width: 1120px; margin: 0 auto; padding: 0 1.5rem 5rem; }
nav {
  position: sticky; top: 0; z-index: 2; background: var(--paper); border-bottom: 1px solid var(--line);
}
nav div {
  max-width: 1120px; margin: 0 auto; padding: .65rem 1.5rem; display: flex; flex-wrap: wrap; gap: .2rem 1.3rem;
  font-size: .86rem; white-space: nowrap;
}
nav a { color: var(--soft); text-decoration: none; }
nav a:hover { color: var(--accent); }
nav strong { color: var(--ink); margin-right: .4rem; }
header { padding: 3.2rem 0 1.2rem; }
header .name { color: var(--accent); font: 600 .86rem/1 ui-monospace, "SF Mono", Menlo, monospace; }
h1 { font-size: clamp(1.6rem, 4vw, 2.4rem); line-height: 1.18; letter-spacing: -.02em;
     margin: .7rem 0 .4rem; max-width: 24em; text-wrap: balance; font-weight: 680; }
header .source { color: var(--soft); margin: 0; }
.chips { display: flex; flex-wrap: wrap; gap: .5rem; margin: 1.3rem 0 0; padding: 0; list-style: none; }
.chips li { background: var(--tint); border-radius: 99px; padding: .22rem .8rem; font-size: .84rem;
            color: var(--soft); }
.chips b { color: var(--ink); font-weight: 620; }
.chips .warn { background: var(--bad-tint); color: var(--bad); }
h2 { font-size: 1.32rem; letter-spacing: -.01em; margin: 3.2rem 0 .9rem; display: flex;
     align-items: baseline; gap: .6rem; font-weight: 660; }
h2 .step { color: var(--faint); font-variant-numeric: tabular-nums; font-weight: 500; }
h2 .verb { font: 500 .78rem/1 ui-monospace, Menlo, monospace; color: var(--soft);
           background: var(--tint); border-radius: 5px; padding: .25rem .5rem; }
h3 { font-size: .95rem; margin: 1.8rem 0 .6rem; color: var(--soft); font-weight: 620; }
p.hint { color: var(--soft); font-size: .9rem; margin: .2rem 0 1rem; max-width: 46em; }
.card { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
        box-shadow: var(--shadow); overflow-x: auto; }
table { border-collapse: collapse; width: 100%; font-variant-numeric: tabular-nums; }
th, td { padding: .6rem .95rem; text-align: right; white-space: nowrap; vertical-align: baseline; }
th:first-child, td:first-child { text-align: left; }
thead th { font-size: .86rem; font-weight: 640; border-bottom: 1px solid var(--line); }
td small { color: var(--faint); font-weight: 400; font-size: .76rem; }
tbody + tbody td { border-top: 0; }
tbody + tbody tr:first-child td, tbody + tbody tr:first-child th { border-top: 1px solid var(--line); }
td.ours { font-size: 1.05rem; }
tbody.ours td:first-child { font-weight: 640; }
.swatch { display: inline-block; width: .65rem; height: .65rem; border-radius: 3px; margin-right: .55rem; }
.best span { font-weight: 720; border-bottom: 2px solid var(--accent); padding-bottom: 1px; }
.baselines, tbody.baselines td:first-child { color: var(--soft); font-size: .92rem; }
.paper { background: var(--tint); color: var(--soft); font-size: .92rem; font-style: italic; }
tbody.paper th { text-align: left; font-size: .74rem; letter-spacing: .07em; color: var(--faint);
                 text-transform: uppercase; font-style: normal; font-weight: 620; padding-bottom: .2rem; }
th small { display: block; color: var(--faint); font-weight: 400; font-style: normal; font-size: .67rem;
           font-family: ui-monospace, Menlo, monospace; }
.turned tbody th { font-weight: 600; font-size: .92rem; }
.turned th, .turned td { padding-block: .38rem; border-top: 1px solid var(--line); }
.turned thead th { border-top: 0; vertical-align: bottom; white-space: normal; }
.turned th, .turned td { padding-inline: .7rem; }
.card + .hint { margin-top: .8rem; }
td.empty { color: var(--faint); font-size: .86rem; font-style: italic; }
.claims { list-style: none; margin: 0; padding: 0; display: grid; gap: .7rem;
          grid-template-columns: repeat(auto-fit, minmax(min(100%, 26rem), 1fr)); }
.claims li { background: var(--card); border: 1px solid var(--line); border-radius: 12px;
             box-shadow: var(--shadow); padding: .9rem 1.1rem; display: flex; gap: .9rem; }
.mark { flex: none; width: 1.75rem; height: 1.75rem; border-radius: 50%; display: grid;
        place-items: center; font-weight: 700; }
.yes .mark { background: var(--good-tint); color: var(--good); }
.no .mark { background: var(--bad-tint); color: var(--bad); }
.open .mark { background: var(--open-tint); color: var(--soft); }
.claims p { margin: 0; font-weight: 560; line-height: 1.35; }
.claims code, .claims small { color: var(--soft); font-size: .82rem; display: block; margin-top: .25rem; }
code, pre { font-family: ui-monospace, "SF Mono", Menlo, monospace; font-size: .84rem; }
.notes { color: var(--soft); font-size: .88rem; padding-left: 1.1rem; }
.runs { font-size: .86rem; }
.runs td, .runs th { padding: .42rem .8rem; }
.runs td { color: var(--soft); border-top: 1px solid var(--line); }
.runs td:first-child { color: var(--ink); }
figure { margin: 1rem 0 0; }
figure.chart { padding: 1rem 1.1rem .8rem; }
figure.chart img { width: 100%; height: auto; display: block; }
figcaption { font-size: .84rem; color: var(--soft); margin: 0 0 .6rem; }
.gallery { display: grid; gap: 1rem; grid-template-columns: repeat(auto-fill, minmax(min(100%, 26rem), 1fr)); }
.gallery figure { margin: 0; padding: .9rem; }
.gallery img { width: 100%; height: auto; border-radius: 6px; display: block; }
.gallery img.pixels { width: auto; max-width: 100%; image-rendering: pixelated; }
.gallery figcaption { margin: .55rem 0 0; display: flex; justify-content: space-between; }
details { margin-top: 1rem; }
summary { cursor: pointer; color: var(--soft); font-size: .9rem; padding: .3rem 0; }
summary:hover { color: var(--accent); }
pre { background: var(--tint); border-radius: 10px; padding: .9rem 1.1rem; overflow-x: auto; margin: .6rem 0; }
.pairs td { text-align: left; white-space: normal; font-size: .86rem; color: var(--soft);
            border-top: 1px solid var(--line); padding: .4rem .95rem; }
.pairs td:first-child { color: var(--ink); white-space: nowrap; }
.pairs th { text-align: left; }
footer { margin-top: 4rem; padding-top: 1.2rem; border-top: 1px solid var(--line);
         color: var(--faint); font-size: .84rem; }
@media print { nav { display: none; } .card, .claims li { break-inside: avoid; } }
"""
