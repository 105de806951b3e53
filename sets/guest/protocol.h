// PROTOCOL.md in C: the messages between guest and executor.
#pragma once
#include <stdint.h>

#define VERSION 3
#define MESSAGE_BYTES 131072
#define STRINGS_BYTES 69608
#define STRINGS_COUNT 8192
#define STDIN_BYTES 61440
#define OUTPUT_BYTES 61440
#define FILES_COUNT 64
#define TOKEN_NAME "GENERAL_COMPUTE_SLOT_TOKEN"
#define TOKEN_BYTES 64

enum { TASK = 1, KILL = 2, RETIRE = 3, DRESSED = 4, PIPES = 5, READ = 6, RELEASE = 7, SHOW = 8, HELLO = 16, OUTPUT = 17, EXITED = 18, CLEANED = 19, UNFIT = 20 };
enum { STDIN_FD = 1, STREAM = 2, PRESTART = 4, OUTPUT_FDS = 8 };
enum { UNDRESSED = 1 };
enum { HANDED_OVER = 1, KILLED = 2, CLEANING = 4, PRESTARTED = 8 };
enum { HOW_EXITED = 0, HOW_SIGNALLED = 1, HOW_NOT_EXECUTED = 2, HOW_NOT_STARTED = 3 };

enum { WHY_UNKNOWN, WHY_FOLDER, WHY_NO_PERMISSION, WHY_CARRIAGE_RETURN, WHY_NO_INTERPRETER, WHY_NO_LOADER, WHY_NO_FORMAT, WHY_FOREIGN };

struct __attribute__((packed)) head { uint8_t type, flags; uint16_t reserved; uint32_t task; };
struct __attribute__((packed)) task_message { struct head head; uint16_t argc, envc, filec, reserved; uint32_t strings_len, stdin_len; };
struct __attribute__((packed)) read_message { struct head head; uint32_t file, reserved; uint64_t first, length; };
struct __attribute__((packed)) hello_message { struct head head; uint8_t version, reserved[3]; char token[TOKEN_BYTES]; };
struct __attribute__((packed)) output_message { struct head head; uint32_t stdout_len, stderr_len; };
struct __attribute__((packed)) exit_message {
    struct head head;
    uint8_t how, why, reserved[2];
    int32_t code;
    uint64_t wall_us, reaped_cpu_us, guest_cpu_us, max_rss_kib;
    uint16_t filec, reserved2;
    uint32_t stdout_len, stderr_len;
};
struct __attribute__((packed)) cleaned_message { struct head head; uint8_t ok, reserved[3]; int32_t error; uint64_t guest_cpu_us; };
