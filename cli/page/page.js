// What moves on a page. Python draws the plots (cli/page/*_plot.py); here they are put up when the reader comes near,
// painted for light or dark, and tied to their controls. Nothing is fetched.
"use strict";
(() => {
  const palettes = JSON.parse(document.getElementById("palettes").textContent);
  const root = document.documentElement;
  const prefersDark = matchMedia("(prefers-color-scheme: dark)");
  const standing = new Map(); // plot name -> its bokeh document
  let chosen = null; // what the reader chose; null: as the system has it
  let printing = false;

  const isDark = () => !printing && (chosen === null ? prefersDark.matches : chosen === "dark");

  // --- light and dark ---------------------------------------------------------------------------------------------

  function paint(drawn) {
    const theme = isDark() ? "dark" : "light";
    const style = getComputedStyle(root);
    const [ink, soft, line, raised] = ["--ink", "--soft", "--line", "--raised"].map((n) => style.getPropertyValue(n).trim());
    for (const model of drawn.all_models) {
      const put = (values) => model.setv(Object.fromEntries(Object.entries(values).filter(([name]) => name in model.properties)));
      const tags = model.tags ?? [];
      if (model.type.endsWith("Axis")) {
        put({ axis_label_text_color: soft, major_label_text_color: ink, axis_line_color: line, major_tick_line_color: line, group_text_color: soft });
      } else if (model.type === "Grid") {
        put({ grid_line_color: line });
      } else if (model.type === "ColorBar" || model.type === "Legend") {
        put({ title_text_color: ink, major_label_text_color: ink, label_text_color: ink, background_fill_color: raised, border_line_color: null });
      } else if (model.type.endsWith("ColorMapper")) {
        for (const tag of tags) if (tag in palettes[theme]) model.palette = palettes[theme][tag];
      }
      if (tags.includes("ink")) put({ text_color: ink, line_color: ink, title_text_color: ink });
      if (tags.includes("outline")) put({ line_color: ink });
      if (tags.includes("soft")) put({ text_color: soft, line_color: soft, fill_color: soft });
      if (tags.includes("on-cell")) put({ text_color: { field: `ink_${theme}` } });
    }
  }

  function repaint() {
    root.dataset.theme = isDark() ? "dark" : "light";
    const button = document.getElementById("theme");
    button.textContent = isDark() ? "Light" : "Dark";
    button.setAttribute("aria-pressed", String(isDark()));
    for (const drawn of standing.values()) paint(drawn);
  }

  // --- putting plots up -------------------------------------------------------------------------------------------

  async function unpack() {
    const packed = document.getElementById("library");
    if (packed === null) return;
    const bytes = Uint8Array.from(atob(packed.textContent.trim()), (c) => c.charCodeAt(0));
    const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
    const script = document.createElement("script");
    script.textContent = await new Response(stream).text();
    document.head.append(script);
    packed.remove();
  }

  const library = unpack();

  async function putUp(figure) {
    const name = figure.dataset.plot;
    if (standing.has(name) || figure.dataset.begun) return;
    figure.dataset.begun = "yes";
    await library;
    const block = document.querySelector(`script.plot-data[data-for="${CSS.escape(name)}"]`);
    const record = JSON.parse(block.textContent);
    const targets = [...figure.querySelectorAll(".target")];
    const root_ids = record.document.roots.map((model) => model.id);
    const roots = Object.fromEntries(root_ids.map((id, i) => [id, targets[i]]));
    const [views] = await Bokeh.embed.embed_items({ [name]: record.document }, [{ docid: name, root_ids, roots }]);
    const drawn = [...views][0].model.document;
    paint(drawn);
    standing.set(name, drawn);
    const by = (part) => drawn.get_model_by_name(part);
    if (record.behaviour) behaviours[record.behaviour](figure, by, record.data);
    figure.dataset.ready = "yes";
  }

  const control = (figure, name) => figure.querySelector(`[data-control="${name}"]`);
  const state = (figure, words) => { figure.querySelector("output.state").textContent = words; };
  const column = (source, name, values) => { source.data[name] = values; };

  // --- what each kind of plot does --------------------------------------------------------------------------------

  const behaviours = {};

  // All that lies on a way through a node, among the edges that are shown.
  function paths(edges, name, shown) {
    const lit = new Set([name]);
    lit.edges = new Set();
    for (const [from, to] of [["source", "target"], ["target", "source"]]) {
      const seen = new Set([name]);
      const queue = [name];
      while (queue.length) {
        const at = queue.pop();
        shown.forEach((yes, i) => {
          if (!yes || edges.data[from][i] !== at) return;
          lit.edges.add(i);
          const next = edges.data[to][i];
          if (!seen.has(next)) { seen.add(next); lit.add(next); queue.push(next); }
        });
      }
    }
    return lit;
  }

  // A circuit: the slider keeps the first n of the ranking, a click lights up the paths through a node.
  behaviours.circuit = (figure, by, data) => {
    const [nodes, edges] = [by("nodes"), by("edges")];
    const [slider, choice, reset] = ["size", "through", "chosen"].map((name) => control(figure, name));
    const place = new Map(nodes.data.name.map((name, i) => [name, i]));
    const { xs, ys } = edges.data;
    let stop = null; // null: the chosen circuit
    let through = "";

    const keptNode = (i) => {
      if (data.ends.includes(nodes.data.name[i])) return true;
      if (stop === null) return nodes.data.inside[i];
      return data.of === "nodes" ? nodes.data.rank[i] <= data.stops[stop].n : reached.has(nodes.data.name[i]);
    };
    let reached = new Set();
    const keptEdge = (i) => {
      if (stop === null) return edges.data.inside[i];
      if (data.of === "edges") return edges.data.rank[i] <= data.stops[stop].n;
      return keptNode(place.get(edges.data.source[i])) && keptNode(place.get(edges.data.target[i]));
    };

    function draw() {
      const n = edges.data.source.length;
      if (data.of === "edges" && stop !== null) {
        reached = new Set();
        for (let i = 0; i < n; i++) if (keptEdge(i)) { reached.add(edges.data.source[i]); reached.add(edges.data.target[i]); }
      }
      const shownEdges = Array.from({ length: n }, (_, i) => keptEdge(i));
      const shownNodes = nodes.data.name.map((_, i) => keptNode(i));
      const lit = through && shownNodes[place.get(through)] ? paths(edges, through, shownEdges) : null;
      column(nodes, "alpha", shownNodes.map((shown, i) => !shown ? 0.1 : lit && !lit.has(nodes.data.name[i]) ? 0.18 : 1));
      column(nodes, "label_alpha", shownNodes.map((shown, i) => !shown ? 0.35 : lit && !lit.has(nodes.data.name[i]) ? 0.35 : 1));
      column(edges, "alpha", shownEdges.map((shown, i) => {
        if (!shown) return 0;
        if (lit === null) return edges.data.strength[i];
        return lit.edges.has(i) ? Math.max(0.85, edges.data.strength[i]) : 0.05;
      }));
      // What is not shown is not to be hovered: its line leaves the picture.
      column(edges, "xs", xs.map((line, i) => shownEdges[i] ? line : []));
      column(edges, "ys", ys.map((line, i) => shownEdges[i] ? line : []));
      nodes.change.emit();
      edges.change.emit();
      say(shownNodes, shownEdges, lit);
      moveCurve();
    }

    function say(shownNodes, shownEdges, lit) {
      const at = stop === null ? null : data.stops[stop];
      const words = [at === null ? data.chosen : at.words];
      if (at !== null && data.of === "edges" && at.n > data.drawn) words.push(`the largest ${data.drawn.toLocaleString("en")} are drawn`);
      if (lit) words.push(`${through}: ${lit.edges.size} edges on paths through it`);
      else if (through) words.push(`${through} is not in this circuit`);
      state(figure, words.join("; ") + ".");
    }

    function moveCurve() {
      const marker = by("marker");
      if (marker === null) return;
      const at = stop === null ? data.own : data.stops[stop];
      column(marker, "n", [at.n]);
      column(marker, "faithfulness", [at.faithfulness]);
      marker.change.emit();
    }

    slider?.addEventListener("input", () => { stop = Number(slider.value); draw(); });
    reset?.addEventListener("click", () => { stop = null; through = ""; choice.value = ""; nodes.selected.indices = []; draw(); });
    choice.addEventListener("change", () => { through = choice.value; draw(); });
    nodes.selected.properties.indices.change.connect(() => {
      const [first] = nodes.selected.indices;
      through = first === undefined ? "" : nodes.data.name[first];
      choice.value = through;
      draw();
    });
    draw();
  };

  // Attention: fills the figure with the pattern of the chosen head, prompt and side.
  behaviours.attention = (figure, by, data) => {
    const pattern = by("pattern");
    const [head, prompt, side] = ["head", "prompt", "side"].map((name) => control(figure, name));
    const [columns, rows] = [by("sources"), by("queries")];
    const plot = pattern.document.roots()[0];

    function label(axis, tokens, places) {
      axis.ticker.ticks = places;
      axis.major_label_overrides = new Map(places.map((i) => [i, tokens[i]]));
    }

    function draw() {
      const tokens = data.prompts[prompt.value][side.value];
      const { queries, rows: weights } = data.heads[head.value][prompt.value][side.value];
      const cells = { x: [], y: [], value: [], query: [], source: [] };
      queries.forEach((query, row) => weights[row].forEach((weight, source) => {
        cells.x.push(source); cells.y.push(row); cells.value.push(weight / 1000);
        cells.query.push(tokens[query]); cells.source.push(tokens[source]);
      }));
      columns.ticker.ticks = []; rows.ticker.ticks = [];
      plot.x_range.setv({ start: -0.5, end: tokens.length - 0.5 });
      plot.y_range.setv({ start: queries.length - 0.5, end: -0.5 });
      label(columns, tokens, tokens.map((_, i) => i));
      rows.ticker.ticks = queries.map((_, row) => row);
      rows.major_label_overrides = new Map(queries.map((query, row) => [row, tokens[query]]));
      pattern.data = cells;
      const last = weights[weights.length - 1];
      const most = last.map((weight, i) => [weight, i]).sort((a, b) => b[0] - a[0]).slice(0, 3);
      state(figure, `${head.value}, ${tokens[queries[queries.length - 1]]} looks at ` +
        most.map(([weight, i]) => `${tokens[i]} (${(weight / 1000).toFixed(2)})`).join(", ") + ".");
    }

    for (const choice of [head, prompt, side]) choice.addEventListener("change", draw);
    draw();
  };

  // Codes: fills the figure with the codes of the chosen head.
  behaviours.codes = (figure, by, data) => {
    const codes = by("codes");
    const head = control(figure, "head");
    const plot = codes.document.roots()[0];

    function draw() {
      const rows = data.heads[head.value];
      const names = rows.map(([code]) => String(code));
      plot.x_range.factors = names;
      codes.data = {
        code: names,
        positives: rows.map((row) => row[1]),
        negatives: rows.map((row) => row[2]),
        below: rows.map((row) => -row[2]),
      };
      state(figure, `${head.value}: ${data.all[head.value]} codes occur, ${data.alone[head.value]} of them on no negative.`);
    }

    head.addEventListener("change", draw);
    draw();
  };

  // Two circuits over one another: a choice of whose parts are shown, a click that lights up the paths through a node.
  behaviours.overlay = (figure, by, data) => {
    const [nodes, edges] = [by("nodes"), by("edges")];
    const [choice, through] = [control(figure, "show"), control(figure, "through")];
    const { xs, ys } = edges.data;
    const neither = 3;

    function draw() {
      const wanted = (side) => side !== neither && (choice.value === "" || side === Number(choice.value));
      const shown = [...edges.data.side].map(wanted);
      const chosen = through?.value ?? "";
      const lit = chosen ? paths(edges, chosen, shown) : null;
      const touched = new Set(data.ends);
      shown.forEach((yes, i) => { if (yes) { touched.add(edges.data.source[i]); touched.add(edges.data.target[i]); } });
      const full = nodes.data.name.map((name, i) => wanted(nodes.data.side[i]) ? 1 : touched.has(name) ? (data.ends.includes(name) ? 1 : 0.4) : 0.1);
      column(nodes, "alpha", full.map((alpha, i) => lit && !lit.has(nodes.data.name[i]) ? Math.min(alpha, 0.18) : alpha));
      column(nodes, "label_alpha", nodes.data.alpha.map((alpha) => alpha < 0.2 ? 0.35 : 1));
      column(edges, "alpha", shown.map((yes, i) => {
        if (!yes) return 0;
        if (lit === null) return edges.data.strength[i];
        return lit.edges.has(i) ? Math.max(0.85, edges.data.strength[i]) : 0.05;
      }));
      column(edges, "xs", xs.map((line, i) => shown[i] ? line : []));
      column(edges, "ys", ys.map((line, i) => shown[i] ? line : []));
      nodes.change.emit();
      edges.change.emit();
      const words = [choice.value === "" ? data.words : choice.selectedOptions[0].textContent];
      if (lit) words.push(`${chosen}: ${lit.edges.size} edges on paths through it`);
      state(figure, words.join("; ") + ".");
    }

    choice.addEventListener("change", draw);
    through?.addEventListener("change", draw);
    nodes.selected.properties.indices.change.connect(() => {
      if (!through) return;
      const [first] = nodes.selected.indices;
      through.value = first === undefined ? "" : nodes.data.name[first];
      draw();
    });
    draw();
  };

  // Two models head by head: a choice of pairs, a click that lights one up and says what its figures are.
  behaviours.alignment = (figure, by, data) => {
    const [pairs, heads] = [by("pairs"), by("heads")];
    const [choice, one] = [control(figure, "show"), control(figure, "pair")];
    let lit = -1;

    function draw() {
      const n = pairs.data.side.length;
      const wanted = (i) => choice.value === "" || (choice.value === "any" ? pairs.data.side[i] < 3 : pairs.data.side[i] === 0);
      const shown = Array.from({ length: n }, (_, i) => wanted(i) || i === lit);
      column(pairs, "alpha", shown.map((yes, i) => !yes ? 0 : lit < 0 ? pairs.data.strength[i] : i === lit ? 1 : 0.08));
      column(heads, "alpha", [...heads.data.pair].map((i) => lit >= 0 ? (i === lit ? 1 : 0.25) : choice.value === "" || shown[i] ? 1 : 0.35));
      pairs.change.emit();
      heads.change.emit();
      state(figure, lit < 0 ? `${data.words}.` : `${pairs.data.called[lit]}: ${pairs.data.figures[lit]}.`);
    }

    function light(i) { lit = i ?? -1; one.value = lit < 0 ? "" : String(lit); draw(); }
    choice.addEventListener("change", draw);
    one.addEventListener("change", () => light(one.value === "" ? -1 : Number(one.value)));
    pairs.selected.properties.indices.change.connect(() => { if (pairs.selected.indices.length) light(pairs.selected.indices[0]); });
    heads.selected.properties.indices.change.connect(() => {
      const [first] = heads.selected.indices;
      if (first !== undefined) light(heads.data.pair[first]);
      else if (!pairs.selected.indices.length) light(-1);
    });
    draw();
  };
/*BEHAVIOURS*/
  // --- beginning --------------------------------------------------------------------------------------------------

  const figures = [...document.querySelectorAll("figure.plot")];
  const watch = new IntersectionObserver((seen) => {
    for (const entry of seen) if (entry.isIntersecting) { watch.unobserve(entry.target); putUp(entry.target); }
  }, { rootMargin: "600px" });
  figures.forEach((figure) => watch.observe(figure));

  document.getElementById("theme").addEventListener("click", () => { chosen = isDark() ? "light" : "dark"; repaint(); });
  prefersDark.addEventListener("change", repaint);
  addEventListener("beforeprint", () => { printing = true; repaint(); figures.forEach(putUp); });
  addEventListener("afterprint", () => { printing = false; repaint(); });
  repaint();
})();
