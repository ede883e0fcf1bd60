document.body.append("ww");
