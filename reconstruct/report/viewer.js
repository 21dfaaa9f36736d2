// The 3D view of a model: coloured points, cameras as frusta, a click on one shows its photo.
//
// Plain WebGL, no library. The data stands in the page as JSON (see content.py, ModelView):
// points as 16-bit positions in a box, colours as bytes, cameras as cam_from_world matrices.
// The view orbits around a target: `turn` (around the model's up), `tilt` (above the ground),
// `distance`. It is drawn only when something changed.
"use strict";
(function () {
  const element = (id) => document.getElementById(id);
  const scene = JSON.parse(element("scene").textContent);
  const canvas = element("canvas");
  if (!canvas || !scene.models.length) return;
  const gl = canvas.getContext("webgl", { antialias: true, alpha: true });
  if (!gl) return;

  // ---- Vectors and matrices (column-major 4 x 4, as WebGL wants them) ----

  const add = (a, b) => a.map((v, i) => v + b[i]);
  const minus = (a, b) => a.map((v, i) => v - b[i]);
  const times = (a, s) => a.map((v) => v * s);
  const dot = (a, b) => a[0] * b[0] + a[1] * b[1] + a[2] * b[2];
  const cross = (a, b) => [
    a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]];
  const unit = (a) => times(a, 1 / Math.max(Math.hypot(...a), 1e-12));

  function multiply(a, b) {
    const m = new Float32Array(16);
    for (let c = 0; c < 4; c++)
      for (let r = 0; r < 4; r++)
        for (let k = 0; k < 4; k++) m[4 * c + r] += a[4 * k + r] * b[4 * c + k];
    return m;
  }

  function perspective(slope, aspect, near, far) {
    const m = new Float32Array(16);
    m[0] = 1 / (slope * aspect);
    m[5] = 1 / slope;
    m[10] = (far + near) / (near - far);
    m[11] = -1;
    m[14] = (2 * far * near) / (near - far);
    return m;
  }

  function lookAt(eye, target, up) {
    const z = unit(minus(eye, target)), x = unit(cross(up, z)), y = cross(z, x);
    return new Float32Array([
      x[0], y[0], z[0], 0, x[1], y[1], z[1], 0, x[2], y[2], z[2], 0,
      -dot(x, eye), -dot(y, eye), -dot(z, eye), 1]);
  }

  // ---- Shaders: points come quantised, lines as they are ----

  function program(vertex, fragment) {
    const made = gl.createProgram();
    for (const [kind, source] of [[gl.VERTEX_SHADER, vertex], [gl.FRAGMENT_SHADER, fragment]]) {
      const shader = gl.createShader(kind);
      gl.shaderSource(shader, source);
      gl.compileShader(shader);
      gl.attachShader(made, shader);
    }
    gl.bindAttribLocation(made, 0, "position");
    gl.bindAttribLocation(made, 1, "color");
    gl.linkProgram(made);
    return made;
  }

  const paint = "precision mediump float; varying vec3 shade;" +
    "void main() { gl_FragColor = vec4(shade, 1.0); }";
  const disc = "precision mediump float; varying vec3 shade; void main() {" +
    "vec2 d = gl_PointCoord - 0.5; if (dot(d, d) > 0.25) discard;" +
    "gl_FragColor = vec4(shade, 1.0); }";
  const pointProgram = program(
    "attribute vec3 position; attribute vec3 color; varying vec3 shade;" +
    "uniform mat4 view; uniform vec3 low; uniform float size; uniform float pixels;" +
    "void main() { shade = color; gl_PointSize = pixels;" +
    "gl_Position = view * vec4(low + size * position, 1.0); }", disc);
  const lineProgram = program(
    "attribute vec3 position; attribute vec3 color; varying vec3 shade; uniform mat4 view;" +
    "void main() { shade = color; gl_Position = view * vec4(position, 1.0); }", paint);

  function buffer(data) {
    const made = gl.createBuffer();
    gl.bindBuffer(gl.ARRAY_BUFFER, made);
    gl.bufferData(gl.ARRAY_BUFFER, data, gl.STATIC_DRAW);
    return made;
  }

  function bind(which, slot, kind, normalized) {
    gl.bindBuffer(gl.ARRAY_BUFFER, which);
    gl.enableVertexAttribArray(slot);
    gl.vertexAttribPointer(slot, 3, kind, normalized, 0, 0);
  }

  // ---- Data ----

  const bytes = (text) => Uint8Array.from(atob(text), (c) => c.charCodeAt(0));

  /** Centre, axes and image corners of a camera in the world. */
  function placed(camera) {
    const m = camera.matrix;
    const right = [m[0], m[1], m[2]], down = [m[4], m[5], m[6]], ahead = [m[8], m[9], m[10]];
    const t = [m[3], m[7], m[11]];
    const center = [0, 1, 2].map((i) => -(right[i] * t[0] + down[i] * t[1] + ahead[i] * t[2]));
    return { camera, center, right, down, ahead };
  }

  /** Distance at which an image plane is drawn: so that neighbouring cameras do not cross. */
  function planeDistance(cameras, size) {
    const nearest = cameras.map((a) => Math.min(
      ...cameras.map((b) => (a === b ? Infinity : Math.hypot(...minus(a.center, b.center))))));
    nearest.sort((a, b) => a - b);
    const middle = nearest[nearest.length >> 1];
    return Math.min(Math.max(Number.isFinite(middle) ? 0.35 * middle : size / 30, size / 200), size / 15);
  }

  const models = scene.models.map((model) => {
    const raw = bytes(model.points);
    const points = new Uint16Array(raw.buffer, 0, raw.length >> 1);
    const cameras = model.cameras.map(placed);
    const few = cameras.length > 600 ? cameras.filter((_, i) => i % 8 === 0) : cameras;
    return {
      model, points, cameras,
      plane: planeDistance(few, model.size),
      pointBuffer: buffer(points),
      colorBuffer: buffer(bytes(model.colors)),
    };
  });

  let current = models[0], selected = -1, view = null;
  let lines = { count: 0, position: null, color: null };

  const COLORS = { mapped: [0.88, 0.45, 0.05], query: [0.15, 0.5, 0.95], selected: [0.95, 0.1, 0.5] };
  const PATH = [0.45, 0.45, 0.5];

  /** Lines of all frusta, and of the path through the cameras in the order of their names. */
  function buildLines() {
    const reach = current.plane * Number(element("camera-size").value);
    const position = [], color = [];
    const segment = (a, b, c) => { position.push(...a, ...b); color.push(...c, ...c); };
    current.cameras.forEach((item, i) => {
      const shade = i === selected ? COLORS.selected : COLORS[item.camera.kind];
      const grow = i === selected ? 1.6 : 1;
      const corner = (x, y) => add(item.center, times(add(item.ahead, add(
        times(item.right, x * item.camera.slopes[0]),
        times(item.down, y * item.camera.slopes[1]))), reach * grow));
      const corners = [corner(-1, -1), corner(1, -1), corner(1, 1), corner(-1, 1)];
      item.middle = corner(0, 0);
      if (reach === 0) return;
      corners.forEach((at, k) => {
        segment(item.center, at, shade);
        segment(at, corners[(k + 1) % 4], shade);
      });
      const roof = corner(0, -1.35);  // which way is up in the photo
      segment(corners[0], roof, shade);
      segment(corners[1], roof, shade);
    });
    if (element("path").checked) {
      const walk = current.cameras.filter((item) => item.camera.kind === "mapped");
      walk.slice(1).forEach((item, i) => segment(walk[i].center, item.center, PATH));
    }
    if (lines.position) { gl.deleteBuffer(lines.position); gl.deleteBuffer(lines.color); }
    lines = {
      count: position.length / 3,
      position: buffer(new Float32Array(position)),
      color: buffer(new Float32Array(color)),
    };
    redraw();
  }

  // ---- The view ----

  /** Two axes on the ground and the model's up. */
  function groundAxes(up) {
    const some = Math.abs(up[0]) < 0.9 ? [1, 0, 0] : [0, 1, 0];
    const east = unit(cross(up, some));
    return [east, cross(up, east), up];
  }

  /** From behind the cameras and a little above, with all of them and nearly all points in sight. */
  function resetView() {
    const { points, model, cameras } = current;
    const axes = groundAxes(unit(model.up));
    const at = (i) => [0, 1, 2].map((k) => model.low[k] + (model.size * points[3 * i + k]) / 65535);
    const count = points.length / 3;
    const sample = [];
    for (let i = 0; i < count; i += Math.max(1, Math.floor(count / 2000))) sample.push(at(i));
    const centers = cameras.map((item) => item.center);
    const target = axes.map((axis) => {
      const [low, high] = bounds(sample.map((p) => dot(p, axis)), centers.map((p) => dot(p, axis)));
      return times(axis, low <= high ? (low + high) / 2 : 0);
    }).reduce(add);
    const ahead = cameras.reduce((sum, item) => add(sum, item.ahead), [0, 0, 0]);
    const turn = Math.hypot(...ahead) > 0.2 * cameras.length
      ? Math.atan2(-dot(ahead, axes[1]), -dot(ahead, axes[0])) : 0.6;
    view = { axes, target, turn: turn + 0.35, tilt: 0.4, distance: model.size / 50 };
    const inSight = (point, now) => {
      const at = onScreen(point, now);
      return at !== null && Math.abs(at[0] / canvas.clientWidth - 0.5) < 0.47 &&
        Math.abs(at[1] / canvas.clientHeight - 0.5) < 0.45;
    };
    for (let i = 0; i < 120; i++) {
      const now = matrix();
      if (centers.every((point) => inSight(point, now)) &&
          sample.filter((point) => inSight(point, now)).length >= 0.92 * sample.length) break;
      view.distance *= 1.05;
    }
    redraw();
  }

  /** The range of nearly all of some numbers (of the points) and of all others (the cameras). */
  function bounds(points, cameras) {
    const ranked = points.sort((a, b) => a - b);
    const few = Math.floor(0.04 * ranked.length);
    const all = cameras.concat(ranked.slice(few, few + 1), ranked.slice(-1 - few).slice(0, 1));
    return [Math.min(...all), Math.max(...all)];
  }

  const SLOPE = Math.tan((25 * Math.PI) / 180);

  function eye() {
    const { axes, target, turn, tilt, distance } = view;
    const flat = add(times(axes[0], Math.cos(turn)), times(axes[1], Math.sin(turn)));
    return add(target, times(add(times(flat, Math.cos(tilt)), times(axes[2], Math.sin(tilt))), distance));
  }

  function matrix() {
    const reach = view.distance + 2 * current.model.size;
    const lens = perspective(SLOPE, canvas.clientWidth / canvas.clientHeight, view.distance / 200, reach * 2);
    return multiply(lens, lookAt(eye(), view.target, view.axes[2]));
  }

  let waiting = false;
  function redraw() {
    if (waiting || !view) return;
    waiting = true;
    requestAnimationFrame(() => { waiting = false; draw(); });
  }

  function draw() {
    const ratio = window.devicePixelRatio || 1;
    const width = Math.round(canvas.clientWidth * ratio);
    const height = Math.round(canvas.clientHeight * ratio);
    if (!width || !height) return;
    if (canvas.width !== width || canvas.height !== height) {
      canvas.width = width;
      canvas.height = height;
    }
    gl.viewport(0, 0, width, height);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.enable(gl.DEPTH_TEST);
    const now = matrix();
    gl.useProgram(pointProgram);
    const uniform = (name) => gl.getUniformLocation(pointProgram, name);
    gl.uniformMatrix4fv(uniform("view"), false, now);
    gl.uniform3fv(uniform("low"), current.model.low);
    gl.uniform1f(uniform("size"), current.model.size);
    gl.uniform1f(uniform("pixels"), Number(element("point-size").value) * ratio);
    bind(current.pointBuffer, 0, gl.UNSIGNED_SHORT, true);
    bind(current.colorBuffer, 1, gl.UNSIGNED_BYTE, true);
    gl.drawArrays(gl.POINTS, 0, current.points.length / 3);
    if (lines.count) {
      gl.useProgram(lineProgram);
      gl.uniformMatrix4fv(gl.getUniformLocation(lineProgram, "view"), false, now);
      bind(lines.position, 0, gl.FLOAT, false);
      bind(lines.color, 1, gl.FLOAT, false);
      gl.drawArrays(gl.LINES, 0, lines.count);
    }
  }

  // ---- Moving: mouse, fingers, keys ----

  function turnBy(dx, dy) {
    view.turn -= dx * 0.006;
    view.tilt = Math.min(1.55, Math.max(-1.55, view.tilt + dy * 0.006));
    redraw();
  }

  function moveBy(dx, dy) {
    const back = unit(minus(eye(), view.target));
    const right = unit(cross(view.axes[2], back)), up = cross(back, right);
    const step = (2 * SLOPE * view.distance) / canvas.clientHeight;
    view.target = add(view.target, add(times(right, -dx * step), times(up, dy * step)));
    redraw();
  }

  function zoomBy(factor) {
    const size = current.model.size;
    view.distance = Math.min(20 * size, Math.max(size / 1000, view.distance * factor));
    redraw();
  }

  const fingers = new Map();
  let travelled = 0;
  const spread = () => {
    const [a, b] = [...fingers.values()];
    return { x: (a.x + b.x) / 2, y: (a.y + b.y) / 2, apart: Math.hypot(a.x - b.x, a.y - b.y) };
  };

  canvas.addEventListener("pointerdown", (event) => {
    canvas.setPointerCapture(event.pointerId);
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    if (fingers.size === 1) travelled = 0;
  });
  canvas.addEventListener("pointermove", (event) => {
    const before = fingers.get(event.pointerId);
    if (!before) return;
    const old = fingers.size === 2 ? spread() : null;
    const dx = event.clientX - before.x, dy = event.clientY - before.y;
    fingers.set(event.pointerId, { x: event.clientX, y: event.clientY });
    travelled += Math.abs(dx) + Math.abs(dy);
    if (old) {
      const now = spread();
      moveBy(now.x - old.x, now.y - old.y);
      if (now.apart > 0) zoomBy(old.apart / now.apart);
    } else if (fingers.size === 1) {
      (event.buttons & 2 || event.shiftKey ? moveBy : turnBy)(dx, dy);
    }
  });
  const lift = (event) => {
    const single = fingers.size === 1;
    if (fingers.delete(event.pointerId) && event.type === "pointerup" && single && travelled < 6) {
      const box = canvas.getBoundingClientRect();
      pick(event.clientX - box.left, event.clientY - box.top);
    }
  };
  canvas.addEventListener("pointerup", lift);
  canvas.addEventListener("pointercancel", lift);
  canvas.addEventListener("contextmenu", (event) => event.preventDefault());
  canvas.addEventListener("wheel", (event) => {
    event.preventDefault();
    zoomBy(Math.exp(Math.max(-60, Math.min(60, event.deltaY)) * 0.004));
  }, { passive: false });
  canvas.addEventListener("keydown", (event) => {
    const keys = {
      ArrowLeft: () => turnBy(-20, 0), ArrowRight: () => turnBy(20, 0),
      ArrowUp: () => turnBy(0, 20), ArrowDown: () => turnBy(0, -20),
      "+": () => zoomBy(0.85), "-": () => zoomBy(1.18), Escape: () => choose(-1),
    };
    if (keys[event.key]) { event.preventDefault(); keys[event.key](); }
  });

  // ---- Cameras: finding the clicked one, showing its photo ----

  /** Where a point of the world is on the canvas in CSS pixels; null behind the eye. */
  function onScreen(point, now) {
    const [x, y, , w] = [0, 1, 2, 3].map(
      (r) => now[r] * point[0] + now[4 + r] * point[1] + now[8 + r] * point[2] + now[12 + r]);
    if (w <= 0) return null;
    return [(x / w / 2 + 0.5) * canvas.clientWidth, (0.5 - y / w / 2) * canvas.clientHeight];
  }

  const NEAR_PX = 22;

  function pick(x, y) {
    const now = matrix();
    let best = -1, least = NEAR_PX;
    current.cameras.forEach((item, i) => {
      for (const point of [item.center, item.middle]) {
        const at = onScreen(point, now);
        const away = at ? Math.hypot(at[0] - x, at[1] - y) : Infinity;
        if (away < least) { best = i; least = away; }
      }
    });
    choose(best);
  }

  /** Mark a camera (-1: none), show its photo, and tell the table. */
  function choose(index, told) {
    selected = index;
    const item = current.cameras[index];
    element("card").hidden = !item;
    if (item) {
      const row = document.querySelector(`tr[data-photo="${item.camera.photo}"]`);
      const image = row && row.querySelector("img");
      const photo = element("card-photo");
      photo.hidden = !image;
      if (image) photo.src = image.src;
      element("card-name").textContent = item.camera.name;
      const error = item.camera.error;
      const figures = row ? window.reportFigures(row) : "";
      element("card-figures").textContent =
        (error === null ? "" : `position error ${error} · `) + figures;
    }
    if (!told) {
      const detail = { photo: item ? item.camera.photo : -1, from: "viewer" };
      document.dispatchEvent(new CustomEvent("photo", { detail }));
    }
    buildLines();
  }

  document.addEventListener("photo", (event) => {
    if (event.detail.from === "viewer") return;
    for (const model of [current, ...models]) {
      const index = model.cameras.findIndex((item) => item.camera.photo === event.detail.photo);
      if (index < 0) continue;
      if (model !== current) show(models.indexOf(model));
      choose(index, true);
      return;
    }
    choose(-1, true);
  });

  /** CSS pixels of a point: few points are drawn larger. */
  const pointSize = (count) => Math.min(5, Math.max(2, 8 - 1.25 * Math.log10(count + 1)));

  function show(number) {
    current = models[number];
    element("which").value = String(number);
    element("point-size").value = String(pointSize(current.points.length / 3));
    resetView();
    choose(-1, true);
  }

  element("which").addEventListener("change", (event) => show(Number(event.target.value)));
  element("point-size").addEventListener("input", redraw);
  element("camera-size").addEventListener("input", buildLines);
  element("path").addEventListener("change", buildLines);
  element("reset").addEventListener("click", resetView);
  element("card-close").addEventListener("click", () => choose(-1));
  canvas.addEventListener("webglcontextlost", (event) => event.preventDefault());
  canvas.addEventListener("webglcontextrestored", () => window.location.reload());
  new ResizeObserver(redraw).observe(canvas);

  element("viewer").hidden = false;
  element("no-viewer").hidden = true;
  show(0);
  // For tests and the curious: where each camera is on the canvas.
  window.reportViewer = {
    cameras: () => current.cameras.map((item) => onScreen(item.center, matrix())),
  };
})();
