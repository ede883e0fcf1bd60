"""What tests of the sandbox run in the place of ww/python/guest: sources are one text, and a request is an expression.

Knows no values and no reserve of memory, so that what the sandbox does is seen by itself.
"""

import encodings.idna
import gc
import hashlib
import io
import json
import os
import pickle
import random
import re
import socket
import sys
import time
import traceback
import uuid

from wit_world.imports import environment, jobs

modules = (encodings, gc, hashlib, io, json, os, pickle, random, re, socket, sys, time, uuid)
space = {module.__name__: module for module in modules} | {"jobs": jobs, "environment": environment}


def failed(error):
    sys.stderr.write(traceback.format_exc())
    sys.stderr.flush()
    kind = type(error)
    return b"\1" + json.dumps({"module": kind.__module__, "name": kind.__qualname__, "text": str(error)}).encode()


class Functions:
    def load(self, name, code, grants):
        try:
            space.update(name=name, grants=json.loads(grants), loaded_with=dict(environment.get_environment()))
            exec(compile(code.decode(), "user", "exec"), space)
            return b"\0"
        except BaseException as error:
            return failed(error)

    def call(self, request):
        try:
            value = eval(request.decode(), space)
            sys.stderr.flush()
            return b"\0" + (value if isinstance(value, bytes) else repr(value).encode())
        except BaseException as error:
            return failed(error)
