# SPDX-License-Identifier: Apache-2.0
"""The style sheet of the report's page. Data colours are Okabe and Ito's, which colour-blind readers can tell apart."""

from __future__ import annotations

STYLE = """
:root{--bg:#f5f6f4;--card:#fff;--ink:#14201e;--soft:#5d6b68;--line:#e4e8e5;--accent:#0a6f6b;--warn:#8a4b00;
--warn-bg:#fff4e2;--sky:#56b4e9;--blue:#0072b2;--green:#009e73;--pink:#cc79a7;--orange:#e69f00;
--red:#d55e00;--yellow:#d9c81e;--grey:#c6cecb;--slate:#66747b;--ok:#2f8f83}
@media(prefers-color-scheme:dark){:root{--bg:#0c1211;--card:#131b1a;--ink:#e6eeec;--soft:#94a5a1;--line:#243130;
--accent:#5cc9bd;--warn:#ffc678;--warn-bg:#2c2213;--sky:#6fc0ee;--blue:#2f8fd0;--green:#20b188;
--pink:#d48fb5;--orange:#e9ab26;--red:#e5742a;--yellow:#e3d54b;--grey:#45524f;--slate:#9aabb2;--ok:#3a9c90}}
*{box-sizing:border-box}
html{-webkit-text-size-adjust:100%}
body{margin:0;background:var(--bg);color:var(--ink);font:16px/1.55 ui-sans-serif,system-ui,-apple-system,"Segoe UI",
Roboto,"Helvetica Neue","DejaVu Sans",sans-serif;font-variant-numeric:tabular-nums}
main{max-width:1088px;margin:0 auto;padding:48px 24px 32px}
p,h1,h2,ul,dl,dd{margin:0;padding:0}
header{margin-bottom:28px}
.eyebrow{color:var(--soft);font-size:14px;letter-spacing:.02em;margin-bottom:14px}
.eyebrow b{color:var(--accent);font-weight:650}
h1{font-size:clamp(28px,5vw,46px);line-height:1.1;font-weight:650;letter-spacing:-.022em}
.lead{margin-top:14px;color:var(--soft);max-width:74ch;overflow-wrap:anywhere}
.notice{background:var(--warn-bg);color:var(--warn);border-radius:10px;padding:10px 16px;
margin-bottom:12px;font-size:15px}
.tiles{display:grid;grid-template-columns:repeat(3,1fr);gap:1px;background:var(--line);border:1px solid var(--line);
border-radius:16px;overflow:hidden;margin-bottom:20px}
.tile{background:var(--card);padding:20px 24px 18px;min-width:0}
.label{color:var(--soft);font-size:13.5px}
.big{font-size:36px;line-height:1.25;font-weight:600;letter-spacing:-.02em;overflow-wrap:anywhere}
.big small{font-size:16px;font-weight:450;color:var(--soft);letter-spacing:0}
.detail{font-size:13.5px;color:var(--soft);overflow-wrap:anywhere}
.card{background:var(--card);border:1px solid var(--line);border-radius:16px;padding:24px 28px 22px;
margin-bottom:20px;min-width:0}
.pair{display:grid;grid-template-columns:minmax(0,1fr) minmax(0,1fr);gap:20px}
h2{font-size:19px;font-weight:620;letter-spacing:-.01em;margin-bottom:2px}
.soft{color:var(--soft);font-size:14px}
.legend{display:flex;flex-wrap:wrap;gap:4px 18px;font-size:13.5px;margin-top:12px}
.key{display:inline-flex;align-items:center;gap:7px}
.swatch{width:11px;height:11px;border-radius:3px;display:inline-block;flex:none}
.rule{width:16px;border-top:1.5px solid var(--ink);opacity:.55}
svg{display:block;width:100%;height:auto;margin-top:14px;overflow:visible}
svg text{font-size:12px;fill:var(--ink)}
svg .soft{fill:var(--soft);font-size:12px}
svg .strong{font-weight:600;font-size:13px}
svg .number{font-size:12px;font-weight:550}
.grid{stroke:var(--line);stroke-width:1}
.axis{stroke:var(--soft);stroke-width:1;opacity:.6}
.slowest{fill:none;stroke:var(--ink);stroke-width:1;opacity:.5}
.mark{stroke:var(--ink);stroke-width:1.25}
.limit{stroke:var(--red);stroke-width:1.5;stroke-dasharray:4 4}
svg .limit-text{fill:var(--soft)}
.clipped{fill:var(--ink)}
.tip{fill:transparent}
.tip:hover{fill:var(--ink);fill-opacity:.08}
.s-other{fill:var(--grey);background:var(--grey)}
.s-decode,.p1{fill:var(--sky);background:var(--sky)}
.s-queue{fill:var(--slate);background:var(--slate)}
.s-preprocess,.p2{fill:var(--green);background:var(--green)}
.s-infer,.p0{fill:var(--blue);background:var(--blue)}
.s-postprocess,.p4{fill:var(--pink);background:var(--pink)}
.s-transport,.p3{fill:var(--orange);background:var(--orange)}
.s-overlay,.p5{fill:var(--red);background:var(--red)}
.s-encode,.p6{fill:var(--yellow);background:var(--yellow)}
.p7{fill:var(--grey);background:var(--grey)}
.h-total{fill:var(--blue)}
.h-age{fill:var(--ok)}
.d-ok{fill:var(--ok);background:var(--ok)}
.d-superseded{fill:var(--sky);background:var(--sky)}
.d-deadline{fill:var(--orange);background:var(--orange)}
.d-overload{fill:var(--pink);background:var(--pink)}
.d-undecodable{fill:var(--yellow);background:var(--yellow)}
.d-failed{fill:var(--red);background:var(--red)}
.d-cancelled,.d-open{fill:var(--grey);background:var(--grey)}
.balance{font-size:17px;font-weight:550;margin:14px 0 10px}
.whole{display:flex;height:14px;border-radius:7px;overflow:hidden;background:var(--line)}
.whole i{min-width:2px}
.ledger{list-style:none;margin-top:10px}
.ledger li{display:grid;grid-template-columns:7.2em 4.2em 1fr;gap:0 12px;align-items:center;padding:7px 0;
font-size:14.5px}
.ledger li+li{border-top:1px solid var(--line)}
.ledger b{font-weight:550}
.ledger .none b,.ledger .none .count{color:var(--soft);font-weight:400}
.count{text-align:right}
.track{height:8px}
.track i{display:block;height:8px;min-width:3px;border-radius:4px}
.why{grid-column:1/-1;color:var(--soft);font-size:12.5px;line-height:1.35}
.scroll{overflow-x:auto;margin-top:12px}
table{border-collapse:collapse;width:100%;font-size:15px}
th,td{text-align:right;padding:7px 0 7px 18px;white-space:nowrap;font-weight:400}
th:first-child{text-align:left;padding-left:0}
thead th{color:var(--soft);font-size:13.5px}
tbody tr{border-top:1px solid var(--line)}
tbody .swatch{margin-right:10px}
.sum th,.sum td{font-weight:620}
.sum{border-top:1.5px solid var(--soft)}
dl{font-size:14.5px;margin-top:10px}
dl div{display:grid;grid-template-columns:8.2em 1fr;gap:12px;padding:6px 0}
dl div+div{border-top:1px solid var(--line)}
dt{color:var(--soft)}
dd{overflow-wrap:anywhere}
footer{color:var(--soft);font-size:13.5px;margin-top:28px}
footer b{color:var(--ink)}
.phone{display:none}
@media(max-width:760px){main{padding:28px 14px 24px}.pair{grid-template-columns:minmax(0,1fr);gap:0}
.tiles{grid-template-columns:1fr 1fr}.tile{padding:14px 16px}.big{font-size:27px}
.card{padding:18px 16px;border-radius:14px}
.wide{display:none}.phone{display:block}th,td{padding-left:12px}table{font-size:14px}
.stages tr>:nth-child(n+6){display:none}}
@media print{body{background:#fff}.card,.tiles{break-inside:avoid}}
"""
