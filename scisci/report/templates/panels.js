// Panels side by side as the width allows, in rows of equal length where they can be.
function fitted(chart, width) {
  const { columns, min, max, aspect, margin, gap } = chart.usermeta.panels;
  const inner = width - margin;
  const least = width < 480 ? Math.min(min, 120) : min; // two side by side on a phone
  const most = Math.max(1, Math.min(columns, Math.floor((inner + gap) / (least + gap))));
  const across = Math.ceil(columns / Math.ceil(columns / most));
  const panel = Math.min(max, Math.floor((inner - (across - 1) * gap) / across));
  const spec = structuredClone(chart);
  spec.columns = across;
  spec.spec.width = panel;
  spec.spec.height = Math.round(Math.min(panel * aspect, 380));
  return spec;
}
