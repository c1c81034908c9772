/* Browsers refuse web workers on pages from the file system. There, run the worker of the search in an iframe instead,
   with the interface that the search uses: postMessage, and "message" events both ways. */
if (location.protocol === "file:") {
  window.IFrameWorker = window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.appendChild(frame);
      this.inside = frame.contentWindow;
      const page = this;
      this.inside.postMessage = function (data) {
        const message = new MessageEvent("message", { data });
        page.dispatchEvent(message);
        if (page.onmessage) page.onmessage(message);
      };
      this.loaded = new Promise((resolve, reject) => {
        this.inside.importScripts = (...urls) => Promise.all(urls.map((each) => this.load(each)));
        this.load(url).then(resolve, reject);
      });
    }
    load(url) {
      return new Promise((resolve, reject) => {
        const script = this.inside.document.createElement("script");
        script.src = new URL(url, document.baseURI).href;
        script.onload = resolve;
        script.onerror = reject;
        this.inside.document.body.appendChild(script);
      });
    }
    postMessage(data) {
      this.loaded.then(() => this.inside.dispatchEvent(new MessageEvent("message", { data })));
    }
    terminate() {
      this.inside.frameElement.remove();
    }
  };
}
