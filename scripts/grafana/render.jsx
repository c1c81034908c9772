// Draws dashboards with Grafana's own components, from answers that Python fetched (window.PAGES), and reports on each
// panel in <pre id="report">. Not drawn: heatmaps, which are a plug-in that npm does not have.
import React from 'react';
import { createRoot } from 'react-dom/client';
import 'uplot/dist/uPlot.min.css';
import {
  applyFieldOverrides, createTheme, dateTime, FieldConfigOptionsRegistry, FieldType, getDisplayProcessor,
  getFieldDisplayValues, locationUtil, standardTransformers, standardTransformersRegistry, transformDataFrame,
} from '@grafana/data';
import { BarGauge, BigValue, GlobalStyles, Table, ThemeContext, TimeSeries, VizRepeater } from '@grafana/ui';

const COLUMN = 60, LINE = 38, TITLE = 32;
const theme = createTheme({ colors: { mode: 'dark' } });
const asWritten = (text) => text;

locationUtil.initialize({
  config: { appSubUrl: '' }, getVariablesUrlParams: () => ({}), getTimeRangeForUrl: () => ({ from: 'now-3h', to: 'now' }),
});
standardTransformersRegistry.setInit(() =>
  [...new Map(Object.values(standardTransformers).map((one) => [one.id, one])).values()]
    .map((transformation) => ({ id: transformation.id, name: transformation.name, transformation })));

// Grafana drops what its registry of field options does not know; ours knows the standard ones and those of the panel.
const STANDARD = ['unit', 'min', 'max', 'decimals', 'noValue', 'color', 'thresholds', 'mappings', 'links', 'displayName'];
const option = (id) => ({
  id, path: id.replace('custom.', ''), isCustom: id.startsWith('custom.'), name: id,
  process: asWritten, override: asWritten, shouldApply: () => true,
});
function registry({ defaults, overrides }) {
  const custom = Object.keys(defaults.custom ?? {}).map((name) => `custom.${name}`);
  const overridden = overrides.flatMap((one) => one.properties.map((property) => property.id));
  const ids = new Set([...STANDARD, ...custom, ...overridden.filter((id) => id.startsWith('custom.'))]);
  return new FieldConfigOptionsRegistry(() => [...ids].map(option));
}

const named = (format, labels) => format === '__auto'
  ? Object.entries(labels).filter(([name]) => name !== '__name__').map(([, value]) => value).join(' ') || 'Value'
  : format.replace(/\{\{\s*(\w+)\s*\}\}/g, (_, name) => labels[name] ?? '');

function seriesFrames({ answers, step }) {
  return answers.flatMap(({ refId, legend, result }) => result.map(({ metric, values }) => {
    const name = named(legend, metric);
    return { refId, name, length: values.length, fields: [
      { name: 'Time', type: FieldType.time, config: { interval: step }, values: values.map(([at]) => at * 1000) },
      { name: 'Value', type: FieldType.number, labels: metric, config: { displayNameFromDS: name },
        values: values.map(([, value]) => Number(value)) },
    ] };
  }));
}

function tableFrames({ answers }) {
  return answers.filter(({ result }) => result.length).map(({ refId, result }) => {
    const labels = [...new Set(result.flatMap(({ metric }) => Object.keys(metric)))].sort();
    return { refId, length: result.length, fields: [
      { name: 'Time', type: FieldType.time, config: {}, values: result.map(({ values }) => values.at(-1)[0] * 1000) },
      ...labels.map((label) => ({ name: label, type: FieldType.string, config: {},
        values: result.map(({ metric }) => metric[label] ?? '') })),
      { name: answers.length > 1 ? `Value #${refId}` : 'Value', type: FieldType.number, config: {},
        values: result.map(({ values }) => Number(values.at(-1)[1])) },
    ] };
  });
}

const configured = (panel, data) => applyFieldOverrides({
  data, fieldConfig: panel.fieldConfig, fieldConfigRegistry: registry(panel.fieldConfig),
  replaceVariables: asWritten, theme, timeZone: 'utc',
});

function Words({ panel }) {
  return <div data-words style={{ textAlign: 'center', paddingTop: 24, color: theme.colors.text.secondary }}>
    {panel.fieldConfig.defaults.noValue}</div>;
}

function figures(panel) {
  return () => getFieldDisplayValues({
    data: configured(panel, seriesFrames(panel)), fieldConfig: panel.fieldConfig,
    reduceOptions: panel.options.reduceOptions, replaceVariables: asWritten, theme, timeZone: 'utc',
  });
}

function Stat({ panel, width, height }) {
  const { colorMode, graphMode, justifyMode, textMode } = panel.options;
  return <VizRepeater source={panel} renderCounter={0} width={width} height={height} autoGrid orientation="auto"
    getValues={figures(panel)} renderValue={({ value, width, height, count }) =>
      <BigValue value={value.display} {...{ width, height, count, theme, colorMode, graphMode, justifyMode, textMode }} />} />;
}

function Bars({ panel, width, height }) {
  if (!panel.answers.some(({ result }) => result.length)) return <Words panel={panel} />;
  const { displayMode, orientation, showUnfilled, valueMode } = panel.options;
  const { defaults } = panel.fieldConfig;
  return <VizRepeater source={panel} renderCounter={0} width={width} height={height} itemSpacing={8} orientation={orientation}
    minVizHeight={16} maxVizHeight={40} getValues={figures(panel)} renderValue={({ value, width, height }) =>
      <BarGauge value={value.display} field={value.field} display={getDisplayProcessor({ field: { type: FieldType.number, config: defaults }, theme })}
        {...{ width, height, theme, orientation, displayMode, showUnfilled }} valueDisplayMode={valueMode} />} />;
}

function Marks({ config, marks }) {
  React.useLayoutEffect(() => {
    config.addHook('draw', (plot) => marks.forEach(({ at, colour }) => {
      const x = plot.valToPos(at * 1000, 'x', true);
      plot.ctx.strokeStyle = theme.visualization.getColorByName(colour);
      plot.ctx.beginPath(); plot.ctx.moveTo(x, plot.bbox.top); plot.ctx.lineTo(x, plot.bbox.top + plot.bbox.height); plot.ctx.stroke();
    }));
  }, [config, marks]);
  return null;
}

function Lines({ panel, page, width, height }) {
  const frames = configured(panel, seriesFrames(panel));
  if (!frames.length) return <Words panel={panel} />;
  frames.forEach((frame, index) => { frame.fields[1].state = { ...frame.fields[1].state, seriesIndex: index }; });
  const [from, to] = [dateTime(page.from), dateTime(page.to)];
  return <TimeSeries frames={frames} structureRev={1} timeRange={{ from, to, raw: { from, to } }} timeZone="utc"
    width={width} height={height} legend={panel.options.legend} options={panel.options}>
    {(config) => <Marks config={config} marks={page.marks} />}</TimeSeries>;
}

function Sheet({ panel, width, height }) {
  const [data, show] = React.useState();
  React.useEffect(() => {
    const steps = transformDataFrame(panel.transformations ?? [], tableFrames(panel), { interpolate: asWritten });
    const listening = steps.subscribe((found) => show(configured(panel, found)));
    return () => listening.unsubscribe();
  }, [panel]);
  if (!data) return null;
  if (!data[0]?.length) return <Words panel={panel} />;
  return <Table data={data[0]} width={width} height={height} columnMinWidth={60} initialSortBy={panel.options.sortBy} />;
}

const KINDS = { stat: Stat, bargauge: Bars, timeseries: Lines, table: Sheet };

class Guard extends React.Component {
  state = {};
  static getDerivedStateFromError(error) { return { error }; }
  render() { return this.state.error ? <pre data-error>{String(this.state.error.stack)}</pre> : this.props.children; }
}

function Panel({ panel, page, uid }) {
  const { x, y, w, h } = panel.gridPos;
  const place = { position: 'absolute', left: x * COLUMN + 4, top: y * LINE + 4, width: w * COLUMN - 8, height: h * LINE - 8 };
  if (panel.type === 'row') return <div style={{ ...place, padding: '4px 8px', fontWeight: 500, fontSize: 16 }}>{panel.title}</div>;
  const Kind = KINDS[panel.type];
  return <div data-panel={panel.title} data-uid={uid} data-drawn={Boolean(Kind)} style={{
    ...place, overflow: 'hidden', background: theme.colors.background.primary, border: `1px solid ${theme.colors.border.weak}` }}>
    <div style={{ padding: '6px 8px', height: TITLE, fontWeight: 500, whiteSpace: 'nowrap' }}>{panel.title}</div>
    <div data-body style={{ padding: '0 8px' }}>{Kind && <Guard>
      <Kind panel={panel} page={page} width={w * COLUMN - 26} height={h * LINE - TITLE - 18} /></Guard>}</div>
  </div>;
}

function Page({ page }) {
  const { uid, title, panels } = page.dashboard;
  const bottom = Math.max(...panels.map(({ gridPos }) => gridPos.y + gridPos.h));
  return <><div style={{ padding: '10px 12px', fontSize: 18 }}>{title}<span style={{ color: theme.colors.text.secondary }}> · {page.caption}</span></div>
    <div style={{ position: 'relative', width: 24 * COLUMN, height: bottom * LINE + 4 }}>
      {panels.map((panel) => <Panel key={panel.id} {...{ panel, page, uid }} />)}</div></>;
}

function colours(body) {
  const found = new Set();
  for (const element of body.querySelectorAll('*')) {
    const style = getComputedStyle(element);
    for (const text of [style.backgroundColor, style.backgroundImage, style.color])
      for (const [colour] of text.matchAll(/rgba?\([^)]*\)/g)) found.add(colour);
  }
  return [...found];
}

function report() {
  const panels = [...document.querySelectorAll('[data-panel]')].map((element) => {
    const body = element.querySelector('[data-body]');
    return { uid: element.dataset.uid, title: element.dataset.panel, drawn: element.dataset.drawn === 'true',
      error: body.querySelector('[data-error]')?.textContent ?? '', text: body.innerText, colours: colours(body),
      pictures: body.querySelectorAll('canvas, svg').length };
  });
  const out = document.createElement('pre');
  out.id = 'report';
  out.style.display = 'none';
  out.textContent = JSON.stringify(panels);
  document.body.append(out);
}

createRoot(document.getElementById('root')).render(<ThemeContext.Provider value={theme}><GlobalStyles />
  <div style={{ fontFamily: theme.typography.fontFamily, fontSize: 14, color: theme.colors.text.primary, background: theme.colors.background.canvas }}>
    {window.PAGES.map((page) => <Page key={page.dashboard.uid} page={page} />)}</div></ThemeContext.Provider>);
setTimeout(report, 3000);
