// A page that was opened as a file may start no worker: the site's search runs in a frame instead.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(url) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.inner = frame.contentWindow;
      addEventListener("message", (sent) => {
        if (sent.source === this.inner) {
          this.dispatchEvent(new MessageEvent("message", { data: sent.data }));
        }
      });
      this.ready = new Promise((ready) => {
        this.inner.document.open();
        const answer = 'postMessage = (data) => parent.postMessage(data, "*");';
        this.inner.document.write(
          `<body><script>${answer}</script><script src="${url}"></script></body>`,
        );
        this.inner.document.close();
        this.inner.onload = ready;
      });
    }

    postMessage(data) {
      this.ready.then(() => this.inner.dispatchEvent(new MessageEvent("message", { data })));
    }
  };
}
