"""Answers every question for an IPv4 address with 10.9.9.9."""
import socket

server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("", 53))
print("ready", flush=True)
while True:
    question, client = server.recvfrom(512)
    end = question.index(b"\0", 12) + 5
    known = question[end - 4 : end - 2] == b"\0\1"
    head = question[:2] + b"\x85\x80\0\1" + (b"\0\1" if known else b"\0\0") + b"\0\0\0\0"
    answer = b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes([10, 9, 9, 9]) if known else b""
    server.sendto(head + question[12:end] + answer, client)
