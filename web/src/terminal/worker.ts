console.log("ww");
