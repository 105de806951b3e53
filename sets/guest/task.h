// Tasks: what the executor asks for, carried out.
#pragma once

// Every descriptor from here on belongs to the task.
extern int first_task_fd;

// Take the executor's messages until it has us end.
void __attribute__((noreturn)) serve(void);
