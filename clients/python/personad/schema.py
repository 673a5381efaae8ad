"""Message classes made at run time from personad.proto, which lies beside this file.

Generated code would have to fit the installed protobuf library; a descriptor fits them all. The
file is read by a parser of the part of proto2 that it uses (messages, enums, oneofs, optional and
repeated fields, packed): no compiler is needed where the package is installed.
"""
import os
import re

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

_Field = descriptor_pb2.FieldDescriptorProto
_SCALARS = {name: getattr(_Field, "TYPE_" + name.upper())
            for name in ("double", "float", "int64", "uint64", "int32", "uint32", "bool",
                         "string", "bytes", "sint32", "sint64", "fixed32", "fixed64")}
_LABELS = {"optional": _Field.LABEL_OPTIONAL, "repeated": _Field.LABEL_REPEATED}


class _Tokens:
    def __init__(self, text):
        text = re.sub(r"//[^\n]*|/\*.*?\*/", " ", text, flags=re.S)
        self.items = re.findall(r'"[^"]*"|[A-Za-z_][\w.]*|\d+|[{}=;\[\],]', text)
        self.at = 0

    def next(self, *expected):
        item = self.items[self.at]
        self.at += 1
        if expected and item not in expected:
            raise ValueError(f"personad.proto: expected {' or '.join(expected)}, found {item}")
        return item

    def peek(self):
        return self.items[self.at] if self.at < len(self.items) else None


def _parse_field(tokens, message, label, oneof, package):
    field = message.field.add(label=_LABELS[label])
    kind = tokens.next()
    field.name = tokens.next()
    tokens.next("=")
    field.number = int(tokens.next())
    if kind in _SCALARS:
        field.type = _SCALARS[kind]
    else:
        field.type_name = f".{package}.{kind}"  # message or enum: settled once all are known
    if oneof is not None:
        field.oneof_index = oneof
    if tokens.peek() == "[":
        for part in ("[", "packed", "=", "true", "]"):
            tokens.next(part)
        field.options.packed = True
    tokens.next(";")


def _parse_message(tokens, file):
    message = file.message_type.add(name=tokens.next())
    tokens.next("{")
    while tokens.peek() != "}":
        word = tokens.next("optional", "repeated", "oneof")
        if word != "oneof":
            _parse_field(tokens, message, word, None, file.package)
            continue
        message.oneof_decl.add(name=tokens.next())
        tokens.next("{")
        while tokens.peek() != "}":
            _parse_field(tokens, message, "optional", len(message.oneof_decl) - 1, file.package)
        tokens.next("}")
    tokens.next("}")


def _parse_enum(tokens, file):
    kind = file.enum_type.add(name=tokens.next())
    tokens.next("{")
    while tokens.peek() != "}":
        value = kind.value.add(name=tokens.next())
        tokens.next("=")
        value.number = int(tokens.next())
        tokens.next(";")
    tokens.next("}")


def parse(text):
    """The FileDescriptorProto of the text, as protoc would make it."""
    tokens = _Tokens(text)
    file = descriptor_pb2.FileDescriptorProto(name="personad.proto")
    while tokens.peek() is not None:
        word = tokens.next("syntax", "package", "message", "enum")
        if word == "message":
            _parse_message(tokens, file)
        elif word == "enum":
            _parse_enum(tokens, file)
        elif word == "package":
            file.package = tokens.next()
            tokens.next(";")
        else:
            tokens.next("=")
            tokens.next('"proto2"')
            tokens.next(";")
    enums = {f".{file.package}.{kind.name}" for kind in file.enum_type}
    for message in file.message_type:
        for field in message.field:
            if field.type_name:
                field.type = _Field.TYPE_ENUM if field.type_name in enums else _Field.TYPE_MESSAGE
    return file


def _load():
    path = os.path.join(os.path.dirname(os.path.abspath(__file__)), "personad.proto")
    with open(path, encoding="utf-8") as source:
        file = parse(source.read())
    pool = descriptor_pool.DescriptorPool()
    pool.AddSerializedFile(file.SerializeToString())
    classes = {}
    for message in file.message_type:
        kind = pool.FindMessageTypeByName(f"{file.package}.{message.name}")
        if hasattr(message_factory, "GetMessageClass"):
            classes[message.name] = message_factory.GetMessageClass(kind)
        else:
            classes[message.name] = message_factory.MessageFactory(pool).GetPrototype(kind)
    enums = {kind.name: {value.name: value.number for value in kind.value}
             for kind in file.enum_type}
    return classes, enums


MESSAGES, ENUMS = _load()
Request = MESSAGES["Request"]
Reply = MESSAGES["Reply"]
