console.log("slot");
